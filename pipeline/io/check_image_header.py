"""Check of an image header before its voxels are read: a sound grid, and no more voxels than memory holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.machine import available_memory_gib
from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import LARGER_THAN_MEMORY, ImageFileError, LargerThanMemory
from pipeline.io.image_header import SHEAR_TOLERANCE, ImageHeader

_SMALLEST_MM = 1e-9
"""No voxel is smaller than a picometre: such a size is one of a damaged header."""

_FLAT = 1e-6
"""Volume that three directions of length 1 span, below which they lie in one plane."""


def checked_grid(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The grid, or an ImageFileError where the affine is singular, not finite or sheared (see docs/definitions.md)."""
    columns = affine[:3, :3]
    sizes_mm = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine).all() or _lie_in_one_plane(columns, sizes_mm):
        raise ImageFileError(
            path,
            "bad-affine",
            "its affine is singular or not finite, so its voxels have no place in the patient",
            "write the file again with the affine of its source",
        )
    unit = columns / sizes_mm
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arccos(cosine))
        raise ImageFileError(
            path,
            "sheared",
            f"its voxel axes are sheared: two of them meet at {degrees:.1f} instead of 90 degrees, so voxels are no "
            "boxes and distances in mm would be wrong",
            "resample image and label together onto a grid with right angles (for CT with a tilted gantry: undo the "
            "tilt when converting from DICOM)",
        )
    x, y, z = (int(n) for n in shape)
    return Grid((x, y, z), np.asarray(affine, dtype=np.float64))


def refuse_if_larger_than_memory(header: ImageHeader) -> None:
    """An ImageFileError where the header promises more voxels than fit into free memory; nothing is allocated."""
    needed_gib = header.voxel_bytes * (1 + 4 / header.dtype.itemsize) / 2**30
    free_gib = available_memory_gib()
    if needed_gib > free_gib:
        shape = "×".join(map(str, (*header.grid.shape, *([header.channels] if header.channels > 1 else []))))
        raise LargerThanMemory(
            header.path,
            LARGER_THAN_MEMORY,
            f"its header promises {shape} voxels, which need {needed_gib:,.1f} GiB; {free_gib:.1f} GiB are free",
            "check the header (a damaged one promises anything); if it is right, crop the scan or use more memory",
        )


def _lie_in_one_plane(columns: NDArray[np.float64], sizes_mm: NDArray[np.float64]) -> bool:
    """Judged by their directions alone: the determinant of the columns themselves is small for any small voxel."""
    return bool(sizes_mm.min() < _SMALLEST_MM or abs(np.linalg.det(columns / sizes_mm)) < _FLAT)
