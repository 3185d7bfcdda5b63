"""Real odd files of other projects' tests: each is processed right, or refused with a sentence that says why.

Processed right means: voxels and affine are those that the library owning the format gives, and a label map written
for the file lies on the same grid with the same forms.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.base.machine import Runtime
from pipeline.dataset.checks.check_dataset import find_faults
from pipeline.dataset.manifest import Manifest
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.io.read_label import read_label
from pipeline.io.write_label import write_label

# name: shape of voxels as (channels, x, y, z), axes, codes of what is noted
PROCESSED = {
    "ibsi2_orientation_orientation.nii.gz": ((1, 32, 48, 64), "LPS", []),  # qform only
    "mirp_uninformative_empty_mask.nii.gz": ((1, 8, 8, 8), "LPS", []),
    "mirp_uninformative_uninformative.nii.gz": ((1, 8, 8, 8), "LPS", []),  # float64
    "nibabel_anatomical.nii": ((1, 33, 41, 25), "LAS", []),  # big-endian
    "nibabel_example4d.nii.gz": ((2, 128, 96, 24), "LAS", []),  # 4D
    "nibabel_example_nifti2.nii.gz": ((2, 32, 20, 12), "LAS", []),  # NIfTI-2
    "nibabel_functional.nii": ((20, 17, 21, 3), "LAS", []),  # scl_slope
    "nibabel_resampled_anat_moved.nii": ((1, 17, 21, 3), "LAS", []),  # NaN, named by the checks
    "nibabel_someones_anatomy.nii.gz": ((1, 57, 67, 56), "RAS", []),
    "nibabel_someones_epi.nii.gz": ((1, 53, 61, 33), "RAS", []),
    "nibabel_standard.nii.gz": ((1, 4, 5, 7), "RAS", []),  # sform only
    "niivue_AIL.nii.gz": ((1, 79, 67, 64), "AIL", []),
    "niivue_FLAIR.nii.gz": ((1, 124, 160, 140), "RAS", []),
    "niivue_FLAIR.nrrd": ((1, 124, 160, 140), "RAS", []),
    "niivue_draw.nii.gz": ((1, 79, 67, 64), "AIL", []),  # a label map
    "niivue_lesion.nii.gz": ((1, 124, 160, 140), "RAS", []),
    "niivue_low_res.nii.gz": ((1, 7, 5, 3), "RAS", []),
    "niivue_mha.mha": ((1, 64, 64, 37), "LAS", []),
    "niivue_minimal.nii.gz": ((1, 64, 64, 10), "LAS", ["no-orientation"]),
}
REFUSED = {
    "ivadomed_rgb_test_file.nii.gz": "it holds colours (RGB), not one number a voxel",
    "niivue_complex.nii.gz": "its voxels are complex numbers",
    "nibabel_test.mgz": "its voxel axes are sheared: two of them meet at 38.2 instead of 90 degrees",
    "niivue_shear.nii.gz": "its voxel axes are sheared: two of them meet at 71.5 instead of 90 degrees",
}
# Faults of the checks, of the processed ones.
FOUND = {
    "mirp_uninformative_empty_mask.nii.gz": "every voxel is 0: there is nothing to see",
    "mirp_uninformative_uninformative.nii.gz": "every voxel is 1: there is nothing to see",
    "nibabel_example4d.nii.gz": "it is 4D with 2 volumes; 1 (scan) are meant",
    "nibabel_example_nifti2.nii.gz": "it is 4D with 2 volumes; 1 (scan) are meant",
    "nibabel_functional.nii": "it is 4D with 20 volumes; 1 (scan) are meant",
    "nibabel_resampled_anat_moved.nii": "of all) are NaN or infinite",
    "niivue_minimal.nii.gz": "neither sform nor qform is set",
    "ibsi2_orientation_orientation.nii.gz": "",
    "niivue_low_res.nii.gz": "",
}


@pytest.fixture
def odd(segpipe_data: Path) -> Path:
    return segpipe_data / "odd"


def test_every_odd_file_is_in_the_table(odd: Path) -> None:
    assert {path.name for path in odd.iterdir()} == {*PROCESSED, *REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence(name: str, odd: Path) -> None:
    with pytest.raises(ImageFileError) as fault:
        read_image([odd / name])
    assert fault.value.found.startswith(REFUSED[name])
    assert len(fault.value.cure) > 20


@pytest.mark.parametrize("name", PROCESSED)
def test_voxels_and_place_are_right(name: str, odd: Path) -> None:
    shape, axcodes, notes = PROCESSED[name]
    volume, header = read_image([odd / name]), read_image_header(odd / name)
    assert (volume.array.shape, volume.grid.axcodes) == (shape, axcodes)
    assert [note.code for note in header.notes] == notes
    voxels, affine = as_its_library_reads(odd / name)
    assert np.allclose(volume.grid.affine, affine, atol=1e-5)
    assert np.allclose(volume.array, voxels, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in PROCESSED if ".nii" in name])
def test_a_label_map_for_it_lies_where_it_lies(name: str, odd: Path, tmp_path: Path) -> None:
    volume = read_image([odd / name])
    label = (np.arange(np.prod(volume.grid.shape)).reshape(volume.grid.shape) % 5).astype(np.int32)
    write_label(tmp_path / name, volume.with_array(label))
    before, after = nib.load(odd / name), nib.load(tmp_path / name)
    assert type(before) is type(after)
    assert np.array_equal(np.asarray(after.dataobj), label)
    assert np.array_equal(before.affine, after.affine)
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert before.header[code] == after.header[code]
    assert read_label(tmp_path / name).grid.close_to(volume.grid, 1e-6)


def test_nrrd_and_nifti_of_one_scan_agree(odd: Path) -> None:
    nrrd, nifti = read_image([odd / "niivue_FLAIR.nrrd"]), read_image([odd / "niivue_FLAIR.nii.gz"])
    assert np.array_equal(nrrd.array, nifti.array)
    assert nrrd.grid.close_to(nifti.grid, 0.01)


@pytest.mark.parametrize("name", FOUND)
def test_checks_say_what_is_odd(name: str, odd: Path) -> None:
    case = {"id": "odd", "images": [name], "split": "testing"}
    manifest = Manifest.model_validate({"name": "odd", "channels": [{"name": "scan"}], "cases": [case]})
    faults = find_faults(manifest, odd, Runtime(executor="serial"))
    assert [FOUND[name] in fault.found for fault in faults] == ([True] if FOUND[name] else [])


def as_its_library_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z) and RAS+ affine."""
    if ".nii" in path.name:
        image = nib.load(path)
        voxels = image.get_fdata(dtype=np.float32)
        return (np.moveaxis(voxels, -1, 0) if voxels.ndim == 4 else voxels[None]), image.affine
    itk = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(itk.GetDirection()).reshape(3, 3) * np.array(itk.GetSpacing())
    affine[:3, 3] = itk.GetOrigin()
    return sitk.GetArrayFromImage(itk).transpose(2, 1, 0)[None].astype(np.float32), np.diag([-1, -1, 1, 1]) @ affine
