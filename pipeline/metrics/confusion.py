"""Which structure is taken for which: voxels by reference and predicted structure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_SLAB_VOXELS = 2**22


def confusion(
    pred: NDArray[np.integer], ref: NDArray[np.integer], structures: Mapping[str, tuple[int, ...]]
) -> NDArray[np.int64] | None:
    """Counts of voxels, reference by prediction; row and column 0 are the background, then structures in order.

    Values of no structure count as background. None where structures share label values (regions that overlap).
    """
    values = [value for group in structures.values() for value in group]
    if len(set(values)) < len(values):
        return None
    index_of = np.zeros(max(values) + 2, np.uint16)  # the last entry stands for every larger value
    for index, group in enumerate(structures.values(), start=1):
        index_of[list(group)] = index
    size = len(structures) + 1
    counts = np.zeros(size * size, np.int64)
    axis = int(np.argmax(ref.strides))  # slabs along the slowest axis are contiguous
    step = max(1, _SLAB_VOXELS // max(1, ref.size // max(1, ref.shape[axis])))
    for start in range(0, ref.shape[axis], step):
        slab = (slice(None),) * axis + (slice(start, start + step),)
        joint = index_of.take(ref[slab], mode="clip").astype(np.int64) * size
        joint += index_of.take(pred[slab], mode="clip")
        counts += np.bincount(joint.reshape(-1), minlength=size * size)
    return counts.reshape(size, size)
