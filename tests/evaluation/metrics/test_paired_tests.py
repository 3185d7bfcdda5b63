"""Paired tests: Wilcoxon and Holm."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.metrics.paired_tests import holm, wilcoxon


def test_wilcoxon_on_darwins_maize() -> None:
    """Darwin's cross- against self-fertilised plants, in eighths of an inch (Fisher 1935): W = 24, exact p = 0.0413."""
    differences = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
    assert wilcoxon(differences) == pytest.approx(0.041, abs=0.001)


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_equals_scipy(seed: int) -> None:
    """Without ties by scipy's exact table, with ties by its walk over all signs, for many cases by its normal one."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(0.3, 1, 40)
    assert wilcoxon(plain) == pytest.approx(stats.wilcoxon(plain, method="exact").pvalue)
    tied = rng.integers(-3, 5, 9).astype(float)
    assert wilcoxon(tied) == pytest.approx(
        stats.wilcoxon(tied, method=stats.PermutationMethod(n_resamples=9999)).pvalue
    )
    many = rng.integers(-20, 24, 500).astype(float)
    assert wilcoxon(many) == pytest.approx(stats.wilcoxon(many, method="approx").pvalue)


def test_differences_that_floating_point_splits_are_ties() -> None:
    """0.72 - 0.70, 0.82 - 0.80 and 0.02 differ in their last bits."""
    split = np.array([0.72 - 0.70, 0.82 - 0.80, 0.02, -(0.52 - 0.50), 0.1, 0.2])
    assert len(set(np.abs(split))) > 4
    assert wilcoxon(split) == wilcoxon(np.array([1.0, 1, 1, -1, 2, 3]))


def test_wilcoxon_without_a_difference() -> None:
    assert wilcoxon(np.zeros(5)) == 1.0
    assert wilcoxon(np.array([])) is None


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_closed_testing_by_bonferroni(seed: int) -> None:
    """What Holm abbreviates: a hypothesis falls where Bonferroni's test of every set that holds it falls."""
    p = np.round(np.random.default_rng(seed).uniform(0, 0.3, 6), 2).tolist()  # with ties
    sets = [set(some) for size in range(1, 7) for some in combinations(range(6), size)]
    closed = [max(min(1.0, len(some) * min(p[i] for i in some)) for some in sets if k in some) for k in range(6)]
    assert holm(p) == pytest.approx(closed)


def test_wilcoxon_is_the_share_of_signs_that_are_as_extreme() -> None:
    """All 2^9 signs of nine differences with ties and a zero, counted one by one."""
    differences = np.array([3.0, -1.0, 2.0, 2.0, 0.0, -5.0, 4.0, 1.0, 6.0, 7.0])
    ranks = stats.rankdata(np.abs(differences[differences != 0]))
    middle = ranks.sum() / 2
    far = abs(ranks[differences[differences != 0] > 0].sum() - middle)
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=9)]
    assert wilcoxon(differences) == pytest.approx(np.mean([abs(one - middle) >= far for one in sums]))


def test_holm_by_hand() -> None:
    """0.01·3 = 0.03; 0.02·2 = 0.04; 0.03·1 = 0.03, raised to 0.04 so that the order stays."""
    assert holm([0.03, 0.01, None, 0.02]) == pytest.approx([0.04, 0.03, None, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
