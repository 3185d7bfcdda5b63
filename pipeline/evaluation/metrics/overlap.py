"""Overlap of two masks: counts of voxels, and the ratios that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """How many voxels are in both masks, in the prediction alone and in the reference alone.

    A ratio whose denominator is zero is None; what an empty mask should count as is decided in `metrics.empty`.
    """

    both: int
    pred_only: int
    ref_only: int

    @property
    def n_pred(self) -> int:
        """|P|, the voxels of the prediction."""
        return self.both + self.pred_only

    @property
    def n_ref(self) -> int:
        """|R|, the voxels of the reference."""
        return self.both + self.ref_only

    @property
    def dice(self) -> float | None:
        """2·|P∩R| / (|P| + |R|)."""
        return _ratio(2 * self.both, self.n_pred + self.n_ref)

    @property
    def iou(self) -> float | None:
        """|P∩R| / |P∪R|."""
        return _ratio(self.both, self.both + self.pred_only + self.ref_only)

    @property
    def precision(self) -> float | None:
        """|P∩R| / |P|."""
        return _ratio(self.both, self.n_pred)

    @property
    def recall(self) -> float | None:
        """|P∩R| / |R|."""
        return _ratio(self.both, self.n_ref)


def overlap(pred: NDArray[np.bool_], ref: NDArray[np.bool_]) -> Overlap:
    """Counts of two boolean arrays of one shape."""
    both = int(np.count_nonzero(pred & ref))
    return Overlap(both, int(np.count_nonzero(pred)) - both, int(np.count_nonzero(ref)) - both)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
