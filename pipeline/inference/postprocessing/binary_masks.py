"""Binary masks of structures and their bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def structure_mask(labels: NDArray, values: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of the values; a byte a voxel and another, where isin takes eight more."""
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def bounding_box(mask: NDArray) -> list[tuple[slice, ...]]:
    """The smallest box around a mask, in a list that is empty where the mask is."""
    box = []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if len(along) == 0:
            return []
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return [tuple(box)]
