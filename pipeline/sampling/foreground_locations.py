"""Voxel locations of each structure, of which patches are drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.label_encoding import ignore_index
from pipeline.preprocessing.plan import Plan


def find_locations(
    label_XYZ: NDArray, plan: Plan, most: int, rng: np.random.Generator
) -> tuple[Mapping[int, NDArray[np.int32]], Mapping[int, int]]:
    """For each structure index that occurs, at most `most` of its voxels (N, 3) drawn evenly, and its voxel count."""
    ignore = ignore_index(plan.structures, plan.overlapping)
    flat = label_XYZ.reshape(-1)
    candidates = np.flatnonzero((flat != 0) & (flat != ignore))
    values = flat[candidates]
    locations, foreground = {}, {}
    for index in range(1, len(plan.structures) + 1):
        member = (values >> values.dtype.type(index - 1)) & 1 == 1 if plan.overlapping else values == index
        found = candidates[member]
        foreground[index] = len(found)
        if len(found):
            chosen = found if len(found) <= most else np.sort(rng.choice(found, most, replace=False))
            locations[index] = np.stack(np.unravel_index(chosen, label_XYZ.shape), axis=1).astype(np.int32)
    return locations, foreground
