"""Which structure is taken for which: voxels by reference and predicted structure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.boxes import slabs, slowest_axis

_SLAB_VOXELS = 2**18


def confusion(
    pred: NDArray[np.integer],
    ref: NDArray[np.integer],
    structures: Mapping[str, tuple[int, ...]],
    ignore_value: int | None = None,
) -> NDArray[np.int64] | None:
    """Counts of voxels, reference by prediction; row and column 0 are the background, then structures in order.

    Values of no structure count as background, and so does the prediction where the reference has `ignore_value`.
    None where structures share label values (regions that overlap).
    """
    values = [value for group in structures.values() for value in group]
    if len(set(values)) < len(values):
        return None
    index_of = np.zeros(max(values) + 2, np.intp)  # the last entry stands for every larger value
    for index, group in enumerate(structures.values(), start=1):
        index_of[list(group)] = index
    size = len(structures) + 1
    counts = np.zeros(size * size, np.int64)
    for slab in slabs(ref.shape, slowest_axis(ref), _SLAB_VOXELS):
        predicted = index_of.take(pred[slab], mode="clip")
        if ignore_value is not None:
            predicted[ref[slab] == ignore_value] = 0
        joint = index_of.take(ref[slab], mode="clip") * size + predicted
        counts += np.bincount(joint.reshape(-1), minlength=size * size)
    return counts.reshape(size, size)
