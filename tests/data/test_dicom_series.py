"""DICOM series are put together by where slices lie, and what does not make one volume is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.dicom_series import Slice, names_somebody, open_series, order_slices, read_voxels
from pipeline.data.header import FileFault

HERE = Path("series")


def _slices(count: int = 6, step: float = 2.0, row=(1, 0, 0), column=(0, 1, 0)) -> list[Slice]:
    row, column = np.array(row, float), np.array(column, float)
    normal = np.cross(row, column)
    return [
        Slice(
            Path(f"{k}.dcm"), "1.2.3", np.array([10.0, -20, 30]) + k * step * normal, row, column, (0.5, 0.7), (4, 5), 9
        )
        for k in range(count)
    ]


def test_the_grid_follows_from_positions_not_from_thickness_or_file_order() -> None:
    """LPS origin (10, -20, 30) is RAS (-10, 20, 30); slices go up by 2 mm although each says 9 mm thick."""
    grid = order_slices(_slices()[::-1], HERE).grid
    assert grid.shape == (4, 5, 6)
    np.testing.assert_allclose(
        grid.affine, [[-0.5, 0, 0, -10], [0, -0.7, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]], atol=1e-12
    )
    assert grid.axcodes == "LPS"


@pytest.mark.parametrize(
    ("row", "column", "axcodes"),
    [((1, 0, 0), (0, 0, -1), "LIP"), ((0, 1, 0), (0, 0, -1), "PIR"), ((-1, 0, 0), (0, 1, 0), "RPI")],
)
def test_coronal_sagittal_and_feet_first_series_lie_where_they_say(row: tuple, column: tuple, axcodes: str) -> None:
    grid = order_slices(_slices(row=row, column=column), HERE).grid
    assert grid.axcodes == axcodes
    for index in (0, 5):
        found = grid.affine @ [0, 0, index, 1]
        normal = np.cross(row, column)
        lps = np.array([10, -20, 30]) + 2.0 * index * normal
        np.testing.assert_allclose(found[:3], lps * [-1, -1, 1])


def _without(slices: list[Slice], *indices: int) -> list[Slice]:
    return [entry for k, entry in enumerate(slices) if k not in indices]


@pytest.mark.parametrize(
    ("slices", "code", "said"),
    [
        (_without(_slices(9), 3), "dicom-gap", r"1 slice\(s\) are missing, after 34.0 mm: 4 mm where 2 mm"),
        (_without(_slices(12), 3, 4, 9), "dicom-gap", r"3 slice\(s\) are missing, after 34.0, 46.0 mm"),
        ([*_slices(), _slices()[2]], "dicom-doubled", r"1 time\(s\): at 34.0 mm"),
        ([*_slices(), replace(_slices()[0], series="9.9")], "dicom-mixed", "2 DICOM series, of 6 and 1 files"),
        ([*_slices(), replace(_slices()[0], size=(8, 8))], "dicom-mixed", "differ in size"),
        ([*_slices(), _slices(row=(0, 1, 0), column=(0, 0, -1))[1]], "dicom-mixed", "different directions"),
    ],
)
def test_what_is_not_one_whole_volume_is_named_with_counts_and_places(
    slices: list[Slice], code: str, said: str
) -> None:
    with pytest.raises(FileFault, match=said) as caught:
        order_slices(slices, HERE)
    assert caught.value.code == code


def test_a_tilted_gantry_is_refused_with_its_angle() -> None:
    tilted = [replace(s, position=s.position + np.array([0, 0.5 * k, 0])) for k, s in enumerate(_slices())]
    with pytest.raises(FileFault, match=r"sheared.*tilt"):
        order_slices(tilted, HERE)


def test_real_series_equal_what_gdcm_makes_of_them(segpipe_data: Path) -> None:
    """Voxels and origin against SimpleITK's own series reader, on MR and on JPEG 2000 compressed CT."""
    import SimpleITK as sitk

    for name in ("hippocampus_dicom/11", "totalseg/dicom_ct"):
        folder = segpipe_data / name
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        np.testing.assert_array_equal(read_voxels(folder), sitk.GetArrayFromImage(image).T)
        grid = open_series(folder).grid
        np.testing.assert_allclose(grid.affine[:3, 3] * [-1, -1, 1], image.GetOrigin())
        np.testing.assert_allclose(grid.spacing_mm, image.GetSpacing())


def test_a_folder_named_by_its_patient_is_recognised_and_kept_out_of_messages(
    segpipe_data: Path, tmp_path: Path
) -> None:
    source = segpipe_data / "hippocampus_dicom" / "11"
    named, plain = tmp_path / "Dumbledore_2020", tmp_path / "case_7"
    shutil.copytree(source, named)
    plain.symlink_to(source)
    assert names_somebody(named)
    assert not names_somebody(plain)
    (named / "10.dcm").unlink()
    with pytest.raises(FileFault) as caught:
        open_series(named)
    assert "umbledore" not in str(caught.value)
    assert "missing" in str(caught.value)
