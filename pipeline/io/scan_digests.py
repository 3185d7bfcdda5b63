"""Digests of scans: of a file, of voxels on their grid, and of voxels alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.hashing import digest_of, sha256_of
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid
from pipeline.io.image_file_names import voxel_files


def file_digest(path: Path) -> str:
    """The sha256 of a file; over those of both files, of a header whose voxels lie in another one; of a DICOM folder,
    over those of its files, whatever their names."""
    if not path.is_dir():
        voxels = voxel_files(path)
        return digest_of([sha256_of(file) for file in (path, *voxels)]) if voxels else sha256_of(path)
    return digest_of(sorted(sha256_of(file) for file in path.iterdir() if file.is_file()))


def voxel_digest(array: NDArray[Any], grid: Grid) -> str:
    """sha256 over shape (int64), affine rounded to 1e-4 (float64) and voxels in C order, all little-endian.

    array: (X, Y, Z), or (C, X, Y, Z) which is taken as nibabel has it, (X, Y, Z, C). Integers are hashed as int32,
    all else as float32, so a file that is compressed anew or stored in another type keeps its digest.
    """
    stored = array if array.ndim == 3 else array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    digest = hashlib.sha256(np.array(stored.shape, "<i8").tobytes())
    digest.update((np.round(grid.affine, 4) + 0.0).astype("<f8").tobytes())  # + 0.0: no negative zeros
    for plane in stored:
        digest.update(np.ascontiguousarray(plane, dtype=_stored_type(array)).data)
    return digest.hexdigest()


def content_digest(array: NDArray[Any], grid: Grid) -> str:
    """sha256 of the voxels (X, Y, Z) or (C, X, Y, Z) in canonical orientation, whatever else their header says.

    A copy with another affine, or with turned axes, has the same.
    """
    canonical = to_canonical(grid)[0].apply(array)
    digest = hashlib.sha256(repr(canonical.shape).encode())
    for channel in canonical if canonical.ndim == 4 else [canonical]:
        for plane in channel:
            digest.update(np.ascontiguousarray(plane, dtype=_stored_type(array)).data)
    return digest.hexdigest()


def _stored_type(array: NDArray[Any]) -> str:
    return "<i4" if array.dtype.kind in "iub" else "<f4"
