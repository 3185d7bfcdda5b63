"""Statistics: closed forms, published examples, and the coverage that an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.metrics.bootstrap_intervals import Bootstrap, interval
from pipeline.evaluation.metrics.descriptive_statistics import describe_values

RNG_SEED = 20240101


def one_each(n: int, resamples: int = 2000) -> Bootstrap:
    return Bootstrap.draw([f"subject {i}" for i in range(n)], resamples, seed=1)


def test_describe_leaves_out_what_is_undefined() -> None:
    found = describe_values(np.array([1.0, np.nan, 3.0, 5.0]), one_each(4))
    assert (found["n"], found["mean"], found["median"], found["min"], found["max"]) == (3, 3, 3, 1, 5)
    assert found["std"] == pytest.approx(2)
    low, high = found["ci95"]
    assert 1 <= low < 3 < high <= 5


def test_describe_of_nothing_and_of_one_value() -> None:
    nothing = describe_values(np.array([np.nan, np.nan]), one_each(2))
    assert nothing["n"] == 0
    assert nothing["mean"] is nothing["std"] is nothing["median"] is None
    assert nothing["ci95"] == [None, None]
    single = describe_values(np.array([0.7, np.nan]), one_each(2))
    assert (single["mean"], single["std"], single["ci95"]) == (0.7, None, [None, None])


def test_equal_values_have_no_width() -> None:
    assert describe_values(np.full(10, 0.5), one_each(10))["ci95"] == [0.5, 0.5]


def test_interval_is_that_of_students_t_for_many_subjects() -> None:
    values = np.random.default_rng(RNG_SEED).normal(size=400)
    low, high = interval(one_each(400, resamples=20_000).means(values), 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    np.testing.assert_allclose([low, high], expected, atol=0.004)


def test_resampling_is_by_subject() -> None:
    """Ten copies of each subject's value are no new knowledge: the interval must stay as wide."""
    values = np.random.default_rng(RNG_SEED).normal(size=20)
    names = [f"subject {i}" for i in range(20)]
    once = Bootstrap.draw(names, 2000, seed=1)
    tenfold = Bootstrap.draw(names * 10, 2000, seed=1)
    assert tenfold.subjects_with(np.tile(values, 10)) == 20
    assert describe_values(np.tile(values, 10), tenfold)["ci95"] == pytest.approx(describe_values(values, once)["ci95"])
    naive = Bootstrap.draw([f"{name} scan {k}" for k in range(10) for name in names], 2000, seed=1)
    narrow = np.diff(describe_values(np.tile(values, 10), naive)["ci95"])
    assert narrow < 0.5 * np.diff(describe_values(values, once)["ci95"])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(RNG_SEED).normal(size=30)
    assert describe_values(values, one_each(30)) == describe_values(values, one_each(30))


@pytest.mark.slow
@pytest.mark.parametrize(
    "distribution",
    [stats.norm(0.85, 0.04), stats.beta(30, 4), stats.beta(8, 2), stats.lognorm(0.5, scale=3)],
    ids=["normal", "good Dice", "poor Dice", "HD95"],
)
def test_coverage_at_50_cases_is_at_least_93_percent(distribution: object) -> None:
    """Draws 3000 studies of 50 subjects and counts in how many the interval holds the true mean."""
    studies, n = 3000, 50
    samples = distribution.rvs(size=(studies, n), random_state=RNG_SEED)
    bootstrap = one_each(n)
    held = 0
    for sample in samples:
        low, high = interval(bootstrap.means(sample), n)
        held += low <= distribution.mean() <= high
    assert 0.93 <= held / studies <= 0.97
