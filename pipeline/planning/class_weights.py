"""Class weights of losses: the inverse of each structure's volume."""

from __future__ import annotations

import math

import numpy as np

from pipeline.dataset.loaded_cases import Cases
from pipeline.io.geometry import Spacing, resampled_grid
from pipeline.planning.training_grids import canonical_grids


def inverse_frequency(cases: Cases, crop: str, spacing_mm: Spacing) -> tuple[float, ...]:
    """One weight per output channel, background first (none where structures overlap): 1 / volume, with mean 1.

    Volumes are counted in voxels of the planned grid, which is what a loss sees: background is what the crop keeps of
    it, and ignored voxels are none. What no case holds weighs as much as the smallest class that there is: by its own
    volume it would take all weight away from the others.
    """
    training = cases.training()
    grids = canonical_grids(training, crop)
    planned = [math.prod(resampled_grid(grid, spacing_mm).shape) for grid in grids]
    per_voxel = [after / math.prod(grid.shape) for after, grid in zip(planned, grids, strict=True)]
    voxels = [
        sum(times * case.label_voxels.get(name, 0) for times, case in zip(per_voxel, training, strict=True))
        for name in cases.structures
    ]
    if not cases.overlapping:
        ignored = sum(times * case.ignored_voxels for times, case in zip(per_voxel, training, strict=True))
        voxels.insert(0, max(sum(planned) - ignored - sum(voxels), 1))
    counted = np.array(voxels, float)
    present = counted > 1
    weights = 1 / np.where(present, counted, counted[present].min() if present.any() else 1)
    return tuple(float(f"{weight:.5g}") for weight in weights / weights.mean())


def absent_structures(cases: Cases) -> list[str]:
    """Structures that no training case holds."""
    return [name for name in cases.structures if not any(case.label_voxels.get(name) for case in cases.training())]
