"""Two methods on the same cases: differences case by case, with an interval, a test, and who won how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.evaluation.metrics.bootstrap_intervals import Bootstrap
from pipeline.evaluation.metrics.descriptive_statistics import describe_values

_EXACT_UP_TO = 200

COMPARED = ("dice", "iou", "nsd", "hd95_mm", "assd_mm", "precision", "recall", "hd_mm", "lesion_f1")
LOWER_IS_BETTER = frozenset({"hd95_mm", "assd_mm", "hd_mm"})

TIE = 1e-9
"""Differences up to this are rounding."""


def paired_differences(
    metric: str,
    baseline: NDArray[np.float64],
    other: NDArray[np.float64],
    subjects: Sequence[str],
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """The comparison of `other` with `baseline`, case by case; cases undefined (NaN) on either side are left out.

    `difference` is other − baseline, its interval a bootstrap of subjects. `wins` counts the cases where `other` is
    better (higher, or lower for distances). `p` is Wilcoxon's; it is corrected for other tests by the caller.
    """
    both = ~np.isnan(baseline) & ~np.isnan(other)
    difference = np.where(both, other - baseline, np.nan)
    bootstrap = Bootstrap.draw(subjects, resamples, seed)
    known = difference[both]
    known = np.where(np.abs(known) <= TIE, 0.0, known)
    gain = -known if metric in LOWER_IS_BETTER else known
    return {
        "n": len(known),
        "baseline_mean": float(baseline[both].mean()) if len(known) else None,
        "mean": float(other[both].mean()) if len(known) else None,
        "difference": describe_values(difference, bootstrap),
        "p": wilcoxon(known),
        "wins": int((gain > 0).sum()),
        "losses": int((gain < 0).sum()),
        "ties": int((gain == 0).sum()),
    }


def wilcoxon(differences: NDArray[np.float64]) -> float | None:
    """The two-sided p-value of Wilcoxon's signed-rank test; 1 where all differences are zero, None without any.

    Zeros are left out, ties share their ranks. Up to 200 differences the distribution over all signs is exact, ties
    included; above, it is the normal one with ties in its variance.
    """
    if not len(differences):
        return None
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    # 0.72 - 0.70 and 0.82 - 0.80 tie, whatever their last bits are
    sizes = np.array([float(f"{size:.9g}") for size in np.abs(nonzero)])
    _, tie, count = np.unique(sizes, return_inverse=True, return_counts=True)
    doubled_rank = (2 * np.cumsum(count) - count + 1)[tie]  # twice the mean rank, so that it is whole
    positive, total = int(doubled_rank[nonzero > 0].sum()), int(doubled_rank.sum())
    extreme = min(positive, total - positive)
    if len(nonzero) > _EXACT_UP_TO:
        deviation = np.sqrt((doubled_rank.astype(float) ** 2).sum()) / 2
        return float(min(1.0, 2 * special.ndtr((extreme - total / 2) / deviation)))
    chances = np.ones(1)  # of each sum of positive ranks, one difference after the other
    for rank in doubled_rank:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return float(min(1.0, 2 * chances[: extreme + 1].sum()))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction, in the order given; None stays None and counts as no test."""
    tests = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        corrected[i] = largest
    return corrected
