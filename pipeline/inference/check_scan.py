"""Check of a scan before it is segmented: its channels, its voxels, and how much the model's grid enlarges it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.base.errors import DataError
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume

_MANY_TIMES, _TOO_MANY_TIMES = 8, 100
"""The model's grid may have this many times an image's voxels before that is remarked on, and before it is refused."""


def check_channels_and_voxels(image: Volume, channels: Sequence[str]) -> None:
    """Refuses what would be segmented without sense."""
    if image.array.ndim != 4 or image.array.shape[0] != len(channels):
        found = image.array.shape[0] if image.array.ndim == 4 else 1
        raise DataError(f"{found} channel(s) found, but the model takes {len(channels)}: {', '.join(channels)}")
    for name, channel in zip(channels, image.array, strict=True):
        bad = sum(int(plane.size - np.isfinite(plane).sum()) for plane in channel)
        if bad:
            raise DataError(
                f"channel {name} has {bad} voxel(s) that are NaN or infinite; "
                "replace them by a value that means nothing (for CT -1024, else 0) where that is true of them"
            )


def enlargement(grid: Grid, planned: Grid) -> str:
    """A sentence with both grids where the model's has many times the voxels of an image on `grid`; else empty.

    Raises a DataError where it has so many times as many that they would be made up out of nothing.
    """
    times = math.prod(planned.shape) / math.prod(grid.shape)
    if times <= _MANY_TIMES:
        return ""
    here, there = (f"{_by(g.shape)} voxels of {_by(g.spacing_mm)} mm" for g in (grid, planned))
    sentence = f"{here} become {there} on the model's grid, {times:.0f} times as many"
    if times > _TOO_MANY_TIMES:
        raise DataError(
            f"{sentence}, so next to nothing of them would be seen; check the voxel size in the header "
            f"(or, where it is right, use a model for scans as coarse as this)"
        )
    return sentence


def _by(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
