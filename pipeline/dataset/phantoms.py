"""Phantoms: small scans with known structures, for the demo, the tests and the study of losses.

Three structures of very different size (an organ, a cyst beside it, a nodule inside it), thick slices, axes that are
not RAS in some, an oblique affine in some, a bias field and noise. Case i depends on (seed, i) alone.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import write_json
from pipeline.base.hashing import sha256_of
from pipeline.io.geometry import Shape

STRUCTURES = {"organ": 1, "cyst": 2, "nodule": 3}
MANIFEST_NAME = "manifest.json"
_INTENSITY = np.array([100.0, 300.0, 520.0, 60.0])
_NOISE = 25.0
_SPACING_MM = (1.0, 1.0, 2.0)
_ORIENTATIONS = ("RAS", "LPS", "RAS", "ASR", "LAS", "PIR")


def make_phantoms(
    folder: Path, cases: int = 16, seed: int = 0, shape: Shape = (40, 40, 24), nodule_share: float = 0.007
) -> Path:
    """Writes `cases` images and labels as NIfTI below `folder`, and returns the path of their manifest.

    shape: voxels along R, A, S, of about 1×1×2 mm; both vary by a tenth from case to case. nodule_share: the part of
    all voxels that belongs to the smallest structure.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    entries = []
    for index in range(cases):
        name = f"phantom_{index:03d}"
        image, label = _phantom(np.random.default_rng([seed, index]), index, shape, nodule_share)
        image_path, label_path = f"images/{name}.nii.gz", f"labels/{name}.nii.gz"
        nib.save(image, folder / image_path)
        nib.save(label, folder / label_path)
        entries.append(
            {
                "id": name,
                "subject": name,
                "images": [image_path],
                "label": label_path,
                "split": "training",
                "sha256": {path: sha256_of(folder / path) for path in (image_path, label_path)},
            }
        )
    manifest = {
        "format": "segpipe-manifest/1",
        "name": "phantoms",
        "description": f"{cases} phantoms made with seed {seed}",
        "licence": "CC0-1.0",
        "channels": [{"name": "phantom", "modality": "MR"}],
        "labels": STRUCTURES,
        "cases": entries,
    }
    write_json(folder / MANIFEST_NAME, manifest)
    return folder / MANIFEST_NAME


def _phantom(
    rng: np.random.Generator, index: int, shape: Shape, nodule_share: float
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Image and label of one case, stored along the axes that its index asks for."""
    size = np.rint(np.array(shape) * rng.uniform(0.92, 1.08, 3)).astype(int)
    spacing_mm = np.array(_SPACING_MM) * rng.uniform([0.95, 0.95, 0.9], [1.05, 1.05, 1.1])
    label = _structures(rng, size, spacing_mm, nodule_share)
    image = _INTENSITY[label] * _bias_field(rng, size)
    image += rng.normal(0.0, _NOISE, label.shape)
    affine = _affine(size, spacing_mm, tilted=index % 4 == 3)
    stored = nib.orientations.axcodes2ornt(_ORIENTATIONS[index % len(_ORIENTATIONS)])
    turned = [
        nib.Nifti1Image(array, affine).as_reoriented(nib.orientations.ornt_transform(_RAS, stored))
        for array in (np.rint(image).astype(np.int16), label)
    ]
    for volume in turned:
        volume.set_qform(volume.affine, code=1)
        volume.set_sform(volume.affine, code=1)
        volume.header.set_xyzt_units("mm")
    return turned[0], turned[1]


_RAS = nib.orientations.axcodes2ornt("RAS")


def _structures(rng: np.random.Generator, size: NDArray, spacing_mm: NDArray, nodule_share: float) -> NDArray[np.uint8]:
    """The label map: ellipsoids with a bumpy surface, placed alike in every case up to some play."""
    box_mm = size * spacing_mm
    axes_mm = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(size, spacing_mm, strict=True)]
    position_mm = np.stack(np.meshgrid(*axes_mm, indexing="ij"), axis=-1)
    organ_at = box_mm * (np.array([-0.10, -0.06, 0.0]) + rng.uniform(-0.04, 0.04, 3))
    cyst_at = box_mm * (np.array([0.30, 0.24, 0.06]) + rng.uniform(-0.03, 0.03, 3))
    nodule_at = organ_at + box_mm * rng.uniform(-0.09, 0.09, 3)
    nodule_mm = np.cbrt(nodule_share * box_mm.prod() * 3 / (4 * np.pi)) * rng.uniform(0.95, 1.1)
    label = np.zeros(tuple(size), np.uint8)
    label[_ellipsoid(rng, position_mm - organ_at, box_mm * rng.uniform(0.26, 0.32, 3))] = STRUCTURES["organ"]
    label[_ellipsoid(rng, position_mm - cyst_at, box_mm * rng.uniform(0.13, 0.16, 3))] = STRUCTURES["cyst"]
    label[_ellipsoid(rng, position_mm - nodule_at, np.full(3, nodule_mm), bumps=0.0)] = STRUCTURES["nodule"]
    return label


def _ellipsoid(rng: np.random.Generator, offset_mm: NDArray, radii_mm: NDArray, bumps: float = 0.08) -> NDArray:
    """Voxels inside an ellipsoid whose radius varies by `bumps` with the direction."""
    unit = offset_mm / radii_mm
    radius = np.linalg.norm(unit, axis=-1)
    direction = unit / np.maximum(radius, 1e-6)[..., None]
    waves = np.sin(3 * direction @ rng.normal(size=(3, 3)) + rng.uniform(0, 2 * np.pi, 3)).mean(axis=-1)
    return radius <= 1 + bumps * waves


def _bias_field(rng: np.random.Generator, size: NDArray) -> NDArray:
    """A smooth factor between about 0.8 and 1.25, as of a receiver coil."""
    unit = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"), axis=-1)
    direction = rng.normal(size=3)
    return np.exp(0.2 * np.tanh(unit @ (direction / np.linalg.norm(direction))))


def _affine(size: NDArray, spacing_mm: NDArray, tilted: bool) -> NDArray:
    """Centred in patient space; `tilted` by 10 degrees around R where asked."""
    angle = np.deg2rad(10.0) if tilted else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((size - 1) / 2)
    return affine
