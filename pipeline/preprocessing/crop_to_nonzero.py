"""The crop to the box of voxels that are not background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.foreground_box import Crop, nonzero_box
from pipeline.io.geometry import Grid
from pipeline.preprocessing.plan import Plan


def cropped(grid: Grid, crop: Crop) -> Grid:
    """The part of a grid that `crop` keeps."""
    first = [along.indices(n)[0] for along, n in zip(crop, grid.shape, strict=True)]
    shape = tuple(len(range(*along.indices(n))) for along, n in zip(crop, grid.shape, strict=True))
    shift = np.eye(4)
    shift[:3, 3] = first
    return Grid(shape, grid.affine @ shift)  # type: ignore[arg-type]


def planned_crop(image_CXYZ: NDArray, plan: Plan) -> Crop:
    if plan.crop == "none":
        x, y, z = image_CXYZ.shape[1:]
        return slice(0, x), slice(0, y), slice(0, z)
    return nonzero_box(image_CXYZ, tuple(channel.modality for channel in plan.channels))
