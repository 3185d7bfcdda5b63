"""Image headers: grid, channels and voxel type, before any voxel is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError, bad_header

SHEAR_TOLERANCE = 0.01
"""Largest |cosine| between two voxel axes that counts as rounding (an angle of 89.4 degrees)."""


@dataclass(frozen=True)
class HeaderWarning:
    """Something doubtful that reading settles by a stated rule: the file is usable, a person should know."""

    code: str
    found: str
    cure: str


@dataclass(frozen=True)
class ImageHeader:
    """A file's grid, channels and voxel type. `fields` is what a writer needs to give the same kind of file back."""

    path: Path
    kind: str
    grid: Grid
    channels: int
    dtype: np.dtype
    notes: tuple[HeaderWarning, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    per_voxel: int = 1
    """Numbers that stand side by side in one voxel (MetaImage, NRRD); 1 where channels are volumes of their own."""

    @property
    def may_be_colours(self) -> bool:
        """Whether a voxel holds three or four bytes, as red, green and blue do where a header does not name them."""
        return self.per_voxel in (3, 4) and self.dtype == np.uint8

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels as stored."""
        return int(np.prod([int(n) for n in self.grid.shape], dtype=object)) * self.channels * self.dtype.itemsize


def split_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Spatial shape and channels: the first three axes, and the one axis behind them that is longer than 1."""
    if len(shape) < 3:
        raise ImageFileError(
            path,
            "not-3d",
            f"it has {len(shape)} axes ({'×'.join(map(str, shape))}), a scan has 3",
            "stack its slices into one volume",
        )
    if min(shape) < 1:
        raise bad_header(path, f"a shape of {'×'.join(map(str, shape))} has no voxels")
    further = [n for n in shape[3:] if n > 1]
    if len(further) > 1:
        raise ImageFileError(
            path,
            "not-3d",
            f"it has {len(shape)} axes ({'×'.join(map(str, shape))}); a scan has 3 and one for its channels",
            "split it into one file per channel",
        )
    return shape[:3], further[0] if further else 1
