"""What the phantoms promise to whoever trains on them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.base.files import read_json
from pipeline.base.hashing import sha256_of
from pipeline.dataset.phantoms import STRUCTURES, make_phantoms


def test_a_phantom_depends_on_seed_and_index_alone(tmp_path: Path) -> None:
    many, few, other = tmp_path / "many", tmp_path / "few", tmp_path / "other"
    make_phantoms(many, cases=3, seed=1)
    make_phantoms(few, cases=2, seed=1)
    make_phantoms(other, cases=2, seed=2)
    name = "images/phantom_001.nii.gz"
    voxels = [np.asarray(nib.load(folder / name).dataobj) for folder in (many, few, other)]
    assert np.array_equal(voxels[0], voxels[1])
    assert voxels[0].shape != voxels[2].shape or not np.array_equal(voxels[0], voxels[2])


def test_structures_differ_in_size_and_all_are_whole(tmp_path: Path) -> None:
    manifest = read_json(make_phantoms(tmp_path, cases=6))
    for case in manifest["cases"]:
        label = np.asarray(nib.load(tmp_path / case["label"]).dataobj)
        voxels = np.bincount(label.ravel(), minlength=4)
        assert voxels[STRUCTURES["organ"]] > 5 * voxels[STRUCTURES["cyst"]] > 5 * 100
        assert 100 < voxels[STRUCTURES["nodule"]] < 0.01 * label.size
        assert all(sha256_of(tmp_path / path) == digest for path, digest in case["sha256"].items())


def test_some_lie_along_other_axes_and_all_have_thick_slices(tmp_path: Path) -> None:
    make_phantoms(tmp_path, cases=6)
    headers = [nib.load(path) for path in sorted((tmp_path / "images").iterdir())]
    assert len({nib.aff2axcodes(image.affine) for image in headers}) >= 4
    for image in headers:
        spacing_mm = nib.affines.voxel_sizes(image.affine)
        assert spacing_mm.max() / np.median(spacing_mm) > 1.6


def test_the_smallest_structure_can_be_made_rare(tmp_path: Path) -> None:
    manifest = read_json(make_phantoms(tmp_path, cases=1, nodule_share=0.0007))
    label = np.asarray(nib.load(tmp_path / manifest["cases"][0]["label"]).dataobj)
    assert 0 < (label == STRUCTURES["nodule"]).mean() < 0.001
