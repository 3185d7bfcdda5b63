"""Holes in structures, filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.postprocessing.binary_masks import bounding_box, structure_mask


def fill_holes(labels: NDArray, values: tuple[int, ...], written: int) -> None:
    """Gives background that a structure encloses wholly (6 neighbours) the value `written`, in place."""
    inside = enclosed(structure_mask(labels, values))
    inside &= labels == 0
    labels[inside] = written


def enclosed(mask: NDArray) -> NDArray[np.bool_]:
    """A mask and the holes in it, which no path over faces leads out of."""
    from scipy.ndimage import binary_fill_holes

    filled = mask.copy()
    for box in bounding_box(mask):
        filled[box] = binary_fill_holes(mask[box])
    return filled
