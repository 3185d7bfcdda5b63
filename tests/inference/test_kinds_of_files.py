"""A scan of any kind gets a label map that lies where the scan lies, in the kind of file that is promised for it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.inference.output_paths import output_names
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.io.write_label import write_label
from tests.dataset.small_datasets import scan
from tests.io.test_read_image import oblique, write_any

KINDS = {
    "a.nii": "a.nii.gz",
    "a.nii.gz": "a.nii.gz",
    "a.hdr": "a.nii.gz",
    "a.img": "a.nii.gz",
    "a.mgz": "a.nii.gz",
    "a.mgh": "a.nii.gz",
    "a.mha": "a.mha",
    "a.nrrd": "a.nrrd",
}
"""NIfTI becomes .nii.gz, .mha and .nrrd stay, .mgz and DICOM become .nii.gz."""


def values(shape: tuple[int, ...]) -> np.ndarray:
    """A label map without any symmetry, with gaps between its values."""
    return np.random.default_rng(3).choice([0, 5, 300], shape).astype(np.int32)


def found_by_its_library(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and RAS+ affine of a file, not read by us."""
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return np.asarray(image.dataobj), image.affine
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize(("given", "promised"), KINDS.items())
def test_label_maps_of_every_kind_of_scan(given: str, promised: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_any(tmp_path / given, scan(1), oblique())
    image = read_image([tmp_path / given])
    name = output_names({"a": [tmp_path / given]})["a"]
    assert name == promised
    label = values(image.grid.shape)
    write_label(tmp_path / "out" / name, image.with_array(label))
    voxels, affine = found_by_its_library(tmp_path / "out" / name)
    assert np.array_equal(voxels, label) and voxels.dtype == np.uint16
    assert np.allclose(affine, oblique(), atol=1e-4)
    assert read_label(tmp_path / "out" / name).grid.close_to(image.grid, 1e-4)


@pytest.mark.parametrize("given", ["a.mhd", "a.nhdr"])
def test_headers_apart_from_their_voxels_get_one_whole_file(given: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_any(tmp_path / given, scan(1), oblique())
    image = read_image([tmp_path / given])
    name = output_names({"a": [tmp_path / given]})["a"]
    assert not name.endswith((".mhd", ".nhdr"))
    write_label(tmp_path / "out" / name, image.with_array(values(image.grid.shape)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    voxels, affine = found_by_its_library(tmp_path / "out" / name)
    assert np.array_equal(voxels, values(image.grid.shape)) and np.allclose(affine, oblique(), atol=1e-4)


def test_a_dicom_series_gets_nifti_where_it_lies(segpipe_data: Path, tmp_path: Path) -> None:
    series = segpipe_data / "hippocampus_dicom" / "11"
    image = read_image([series])
    name = output_names({"case": [series]})["case"]
    assert name == "case.nii.gz"
    write_label(tmp_path / name, image.with_array(values(image.grid.shape)))
    voxels, affine = found_by_its_library(tmp_path / name)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    itk = reader.Execute()
    assert np.array_equal(voxels, values(itk.GetSize()))
    for corner in ((0, 0, 0), tuple(n - 1 for n in itk.GetSize())):
        lps = itk.TransformIndexToPhysicalPoint(corner)
        assert np.allclose((affine @ [*corner, 1])[:3], np.array(lps) * [-1, -1, 1], atol=1e-3)
