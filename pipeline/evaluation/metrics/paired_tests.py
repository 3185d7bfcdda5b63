"""Two methods on the same cases: differences case by case, with an interval, a test, and who won how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics.bootstrap_statistics import Bootstrap, describe, wilcoxon

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
        "difference": describe(difference, bootstrap),
        "p": wilcoxon(known),
        "wins": int((gain > 0).sum()),
        "losses": int((gain < 0).sum()),
        "ties": int((gain == 0).sum()),
    }
