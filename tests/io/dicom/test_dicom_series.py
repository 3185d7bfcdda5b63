"""DICOM series are put together by where slices lie, and what does not make one volume is named."""

from __future__ import annotations

import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.io.dicom.dicom_series import open_series, read_voxels
from pipeline.io.dicom.dicom_slice import DicomSlice
from pipeline.io.dicom.patient_names import identifies_patient
from pipeline.io.dicom.slice_order import order_slices
from pipeline.io.image_file_error import ImageFileError

HERE = Path("series")


def _slices(count: int = 6, step: float = 2.0, row=(1, 0, 0), column=(0, 1, 0)) -> list[DicomSlice]:
    row, column = np.array(row, float), np.array(column, float)
    normal = np.cross(row, column)
    return [
        DicomSlice(
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


def _without(slices: list[DicomSlice], *indices: int) -> list[DicomSlice]:
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
    slices: list[DicomSlice], code: str, said: str
) -> None:
    with pytest.raises(ImageFileError, match=said) as caught:
        order_slices(slices, HERE)
    assert caught.value.code == code


def test_a_tilted_gantry_is_refused_with_its_angle() -> None:
    tilted = [replace(s, position=s.position + np.array([0, 0.5 * k, 0])) for k, s in enumerate(_slices())]
    with pytest.raises(ImageFileError, match=r"sheared.*tilt"):
        order_slices(tilted, HERE)


def test_slices_of_two_table_positions_are_no_volume() -> None:
    """Half of them 3 mm to the side: along the normal nothing shows it."""
    shifted = [replace(s, position=s.position + np.array([3.0 * (k > 2), 0, 0])) for k, s in enumerate(_slices())]
    with pytest.raises(ImageFileError, match=r"shifted sideways by up to .* mm") as caught:
        order_slices(shifted, HERE)
    assert caught.value.code == "dicom-shifted"
    close = [replace(s, position=s.position + np.array([0.05 * (k % 2), 0, 0])) for k, s in enumerate(_slices())]
    assert len(order_slices(close, HERE).slices) == 6


@pytest.mark.slow
def test_real_series_equal_what_gdcm_makes_of_them(segpipe_data: Path) -> None:
    """Voxels and origin against SimpleITK's own series reader, on MR and on JPEG 2000 compressed CT."""
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
    assert identifies_patient(named)
    assert not identifies_patient(plain)
    (named / "10.dcm").unlink()
    with pytest.raises(ImageFileError) as caught:
        open_series(named)
    assert "umbledore" not in str(caught.value)
    assert "missing" in str(caught.value)


def _series_of(folder: Path, pixels: np.ndarray, **changes: object) -> Path:
    """Three files of one CT slice each, 2 mm apart, as pydicom writes them."""
    folder.mkdir()
    for index in range(3):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = f"1.2.3.{index + 1}"
        file.SeriesInstanceUID, file.Modality, file.PatientName = "1.2.3", "CT", "Doe^Jane"
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, 2 * index], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SamplesPerPixel, file.PhotometricInterpretation = [0.5, 0.7], 1, "MONOCHROME2"
        file.Rows, file.Columns = pixels.shape
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 1
        file.PixelData = pixels.astype("<i2").tobytes()
        for keyword, value in changes.items():
            setattr(file, keyword, value)
        file.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


PIXELS = np.arange(-10, 10, dtype=np.int16).reshape(4, 5)


def test_bits_that_hold_no_pixel_are_dropped_and_the_sign_is_kept(tmp_path: Path) -> None:
    """Twelve bits of sixteen: -10 is 0x0FF6, and 0xF000 above it is an overlay of old scanners (here 0x3000)."""
    folder = _series_of(tmp_path / "series", (PIXELS & 0x0FFF) | 0x3000, RescaleSlope="0.5", RescaleIntercept="-1024")
    np.testing.assert_array_equal(read_voxels(folder)[:, :, 1], PIXELS.T * 0.5 - 1024)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_pydicoms_lossless_compressions_give_the_pixels_back(syntax: str, tmp_path: Path) -> None:
    folder = _series_of(tmp_path / "series", PIXELS, BitsStored=16, HighBit=15)
    for path in folder.iterdir():
        file = dcmread(path)
        file.compress(syntax)
        file.save_as(path)
    np.testing.assert_array_equal(read_voxels(folder)[:, :, 2], PIXELS.T)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("how", "syntax"), [("JPEG", JPEGLosslessSV1), ("JPEG2000", JPEG2000Lossless)])
def test_gdcms_lossless_compressions_give_the_pixels_back(how: str, syntax: str, signed: bool, tmp_path: Path) -> None:
    """Noise over all 16 bits, so that differences of every size and sign occur; and rows with hardly any."""
    rng = np.random.default_rng(0)
    pixels = np.concatenate([rng.integers(0, 2**16, (60, 40)), np.zeros((5, 40)), rng.integers(0, 9, (5, 40))])
    pixels = pixels.astype(np.uint16).view(np.int16 if signed else np.uint16)
    writer = sitk.ImageFileWriter()
    writer.UseCompressionOn()
    writer.SetCompressor(how)
    for index in range(2):
        path = tmp_path / f"{index}.dcm"
        writer.SetFileName(str(path))
        writer.Execute(sitk.GetImageFromArray(pixels[None]))
        file = dcmread(path)
        assert file.file_meta.TransferSyntaxUID == syntax
        file.SeriesInstanceUID, file.ImagePositionPatient = "1.2.3", [0, 0, 2 * index]
        file.ImageOrientationPatient, file.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        file.save_as(path)
    np.testing.assert_array_equal(read_voxels(tmp_path)[:, :, 1], pixels.T)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PixelData": bytes(8)}, "dicom-pixels"),
        ({"NumberOfFrames": 2}, "dicom-multi-frame"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours"),
        ({"SamplesPerPixel": 3}, "colours"),
        ({"ImagePositionPatient": [0, 0]}, "dicom-no-place"),
        ({"PixelSpacing": None}, "dicom-no-place"),
    ],
)
def test_files_that_are_no_slices_are_refused_without_naming_anybody(changes: dict, code: str, tmp_path: Path) -> None:
    folder = _series_of(tmp_path / "jane_doe", PIXELS, **changes)
    with pytest.raises(ImageFileError) as caught:
        read_voxels(folder)
    assert caught.value.code == code
    assert "jane" not in str(caught.value)


def test_a_file_that_ends_within_its_header_is_called_damaged(tmp_path: Path) -> None:
    folder = _series_of(tmp_path / "series", PIXELS)
    content = (folder / "1.dcm").read_bytes()
    (folder / "1.dcm").write_bytes(content[:180])
    with pytest.raises(ImageFileError) as caught:
        read_voxels(folder)
    assert caught.value.code in {"dicom-damaged", "dicom-no-place"}


@pytest.mark.parametrize(
    ("patient", "folder", "expected"),
    [
        ("Müller^Hans", "Mueller", True),
        ("Müller^Hans", "Muller_2020", True),
        ("Müller^Hans", unicodedata.normalize("NFD", "Müller"), True),
        ("Mueller^Hans", "Müller", True),
        ("Wang^Wei=王^伟", "王伟", True),
        ("Li^Na", "case_li_3", True),
        ("Li^Na", "clinic", False),
        ("Müller^Hans", "1881-08-26", True),
        ("Müller^Hans", "case_7", False),
    ],
)
def test_a_patient_is_recognised_however_the_folder_spells_the_name(
    segpipe_data: Path, tmp_path: Path, patient: str, folder: str, expected: bool
) -> None:
    dataset = dcmread(sorted((segpipe_data / "hippocampus_dicom" / "11").iterdir())[0])
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientBirthDate = "ISO_IR 192", patient, "18810826"
    (tmp_path / folder).mkdir()
    dataset.save_as(tmp_path / folder / "1.dcm")
    assert identifies_patient(tmp_path / folder) is expected


def test_files_deflated_as_a_whole_are_refused_before_they_grow(segpipe_data: Path, tmp_path: Path) -> None:
    """pydicom would unpack one before it looks at a single attribute, whatever it grows to."""
    dataset = dcmread(sorted((segpipe_data / "hippocampus_dicom" / "11").iterdir())[0])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "1.dcm")
    with pytest.raises(ImageFileError, match="deflated as a whole") as caught:
        open_series(tmp_path)
    assert caught.value.code == "dicom-deflated"
