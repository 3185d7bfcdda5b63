"""The manifests that are shipped, by themselves and held against the real scans."""

import gzip
import hashlib
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from pipeline.dataset.manifest import read_manifest
from pipeline.io.read_image import read_image
from pipeline.io.scan_digests import voxel_digest
from tests.layouts.small_layouts import AFFINE

SHIPPED = {
    "msd_task04_hippocampus": ("hippocampus", 208, 1, ["anterior", "posterior"]),
    "openkbp": (
        "openkbp",
        26,
        1,
        ["brainstem", "spinal_cord", "right_parotid", "left_parotid", "esophagus", "larynx", "mandible"],
    ),
    "sts_multi": ("sts_multi", 14, 3, ["tumour"]),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_says_what_the_data_is(repository, name):
    manifest = read_manifest(repository / "data_manifests" / f"{name}.json")
    _, cases, channels, structures = SHIPPED[name]
    assert (len(manifest.cases), len(manifest.channels), list(manifest.labels)) == (cases, channels, structures)
    assert manifest.licence
    assert manifest.source
    assert manifest.root is None
    for case in manifest.cases:
        files = {*case.images, case.label}
        assert set(case.voxel_digest) == files
        assert not any(file.startswith(("/", "..")) for file in files)


@pytest.mark.parametrize("name", SHIPPED)
def test_folds_are_those_of_nnunet(repository, name):
    # scikit-learn's KFold(5, shuffle=True, random_state=12345): shuffle the indices, cut them into five runs.
    manifest = read_manifest(repository / "data_manifests" / f"{name}.json")
    order = np.arange(len(manifest.cases))
    np.random.RandomState(12345).shuffle(order)
    expected = {int(i): fold for fold, part in enumerate(np.array_split(order, 5)) for i in part}
    cases = sorted(manifest.cases, key=lambda case: case.id)
    assert {i: case.fold for i, case in enumerate(cases)} == expected
    sizes = Counter(case.fold for case in cases)
    assert max(sizes.values()) - min(sizes.values()) <= 1


def digest(path, kind):
    """The voxel digest by its definition, read with nibabel alone."""
    image = nib.load(path)
    voxels = np.ascontiguousarray(np.asarray(image.dataobj).astype(kind))
    shape, affine = np.array(voxels.shape, "<i8"), np.round(image.affine, 4).astype("<f8") + 0.0
    return hashlib.sha256(shape.tobytes() + affine.tobytes() + voxels.tobytes()).hexdigest()


@pytest.mark.parametrize("name", SHIPPED)
def test_digests_are_those_of_the_real_scans(repository, segpipe_data, name):
    manifest = read_manifest(repository / "data_manifests" / f"{name}.json")
    root = segpipe_data / SHIPPED[name][0]
    for case in manifest.cases[::5]:
        for path, expected in case.voxel_digest.items():
            assert digest(root / path, "<i4" if path == case.label else "<f4") == expected, path


def test_a_recompressed_copy_has_the_same_digest(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii.gz")
    with gzip.open(tmp_path / "b.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    assert (tmp_path / "a.nii.gz").read_bytes() != (tmp_path / "b.nii.gz").read_bytes()
    a, b = (read_image([tmp_path / name]) for name in ("a.nii.gz", "b.nii.gz"))
    assert voxel_digest(a.array, a.grid) == voxel_digest(b.array, b.grid) == digest(tmp_path / "a.nii.gz", "<f4")
