"""Small data sets for tests: sound ones, into which a test puts one fault."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.manifest import Manifest

SHAPE = (14, 12, 10)
SPACING_MM = (1.0, 1.0, 2.0)


def affine(spacing_mm: tuple[float, float, float] = SPACING_MM, origin_mm: tuple[float, ...] = (5, -7, 9)) -> NDArray:
    """An RAS affine."""
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[:3, 3] = origin_mm
    return matrix


def scan(seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray:
    """Noise in which no two voxels of two seeds agree by design."""
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def label(shape: tuple[int, ...] = SHAPE) -> NDArray:
    """Two boxes: value 1 of 36 voxels, value 2 of 24."""
    array = np.zeros(shape, np.uint8)
    array[2:6, 2:5, 2:5] = 1
    array[8:12, 6:9, 4:6] = 2
    return array


def save(path: Path, array: NDArray, matrix: NDArray | None = None) -> Path:
    """Writes a NIfTI file in mm, with equal qform and sform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine() if matrix is None else matrix)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def dataset(root: Path, cases: int = 6, modality: str = "MR") -> Manifest:
    """`cases` sound cases c0, c1, ... below `root`, with one channel and structures head = 1 and tail = 2."""
    for i in range(cases):
        array = scan(i) if modality != "CT" else scan(i) * 5 - 500
        save(root / f"images/c{i}.nii.gz", array)
        shifted = np.roll(label(), i % 3, axis=0)
        shifted[0, 0, i % SHAPE[2]] = 1  # so that no two label maps are the same
        save(root / f"labels/c{i}.nii.gz", shifted)
    return manifest(cases, modality)


def manifest(cases: int = 6, modality: str = "MR", **changes: object) -> Manifest:
    """The manifest of `dataset`; `changes` replace its keys."""
    entries = [{"id": f"c{i}", "images": [f"images/c{i}.nii.gz"], "label": f"labels/c{i}.nii.gz"} for i in range(cases)]
    content = {
        "name": "small",
        "channels": [{"name": "scan", "modality": modality}],
        "labels": {"head": 1, "tail": 2},
        "cases": entries,
    }
    return Manifest.model_validate(content | changes)


def with_case(manifest: Manifest, index: int, **changes: object) -> Manifest:
    """The manifest with keys of one case replaced."""
    content = manifest.model_dump(mode="json")
    content["cases"][index] |= changes
    return Manifest.model_validate(content)
