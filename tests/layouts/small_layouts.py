"""Small data sets in every layout, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import nibabel as nib
import numpy as np

AFFINE = np.array([[-1.0, 0, 0, 10], [0, 2.0, 0, -5], [0, 0, 3.0, 0], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)


def image(path: Path, channels: int = 1, lowest: float = 0.0) -> Path:
    """A NIfTI image of its own values (seeded by its name), 4D where it has several channels."""
    seed = crc32(path.name.encode())
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    array = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    array.flat[0] = lowest
    return _save(path, array)


def label(path: Path, *values: int) -> Path:
    """A label map with one block of 15 voxels per value."""
    array = np.zeros(SHAPE, np.uint16)
    for position, value in enumerate(values or (1,)):
        array[position, :, :3] = value
    return _save(path, array)


def descriptor(folder: Path, values: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(values))
    return folder


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path
