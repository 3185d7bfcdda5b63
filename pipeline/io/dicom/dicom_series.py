"""A folder with one DICOM series as a volume, put together by geometry: where each slice says that it lies.

File names, instance numbers and slice thickness are not believed. Messages give counts and millimetres, never a file's
name (often a UID) nor an identifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.io.check_image_header import refuse_if_larger_than_memory
from pipeline.io.dicom.decode_pixels import decode_slice
from pipeline.io.dicom.dicom_file import (
    damaged_file,
    dicom_read_errors,
    is_dicom,
    number_of,
    read_attributes,
    value_of,
    visible_files,
)
from pipeline.io.dicom.patient_names import display_path
from pipeline.io.dicom.slice_order import DicomSlice, Series, order_slices
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_header import ImageHeader

_PLACE = (
    *("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("NumberOfFrames", "Columns", "Rows"),
)


def read_header(folder: Path) -> ImageHeader:
    """Grid and voxel type of the series in `folder`; an ImageFileError as `order_slices`."""
    return ImageHeader(folder, "dicom", open_series(folder).grid, 1, np.dtype(np.float32), (), {"kind": "dicom"})


def read_voxels(folder: Path) -> NDArray[np.float32]:
    """The voxels (X, Y, Z) of the series in `folder`, rescaled (for CT to Hounsfield units).

    An ImageFileError as `order_slices`, where there is not enough memory, or where a slice cannot be decoded.
    """
    refuse_if_larger_than_memory(read_header(folder))
    series = open_series(folder)
    array = np.empty(series.grid.shape, np.float32)
    for index, entry in enumerate(series.slices):
        array[:, :, index] = decode_slice(entry.path, display_path(folder))
    return array


def open_series(folder: Path) -> Series:
    """The slices of the series in `folder`, in order, without their pixels; an ImageFileError as `order_slices`."""
    paths = [path for path in visible_files(folder) if is_dicom(path)]
    place = display_path(folder)
    if not paths:
        raise ImageFileError(place, "no-dicom", "no DICOM file lies in this folder", "name the folder with the series")
    return order_slices([_read_slice(path, place) for path in paths], place)


def _read_slice(path: Path, place: Path) -> DicomSlice:
    dataset = read_attributes(path, place, _PLACE)

    def numbers(keyword: str, count: int) -> list[float]:
        found = value_of(dataset, keyword, place)
        try:
            values = list(map(float, found)) if isinstance(found, Sequence) and not isinstance(found, str) else []
        except dicom_read_errors():
            raise damaged_file(place) from None
        if len(values) != count or not np.isfinite(values).all():
            said = f"one of its DICOM files states no {keyword}, so its place is unknown"
            raise ImageFileError(place, "dicom-no-place", said, "leave files that are no slices of the volume out")
        return values

    frames = int(number_of(dataset, "NumberOfFrames", place, 1))
    if frames > 1:
        found = f"it holds a multi-frame DICOM file of {frames} frames"
        raise ImageFileError(place, "dicom-multi-frame", found, "convert it to NIfTI, or to one file per slice")
    orientation = np.array(numbers("ImageOrientationPatient", 6))
    between_rows, between_columns = numbers("PixelSpacing", 2)
    return DicomSlice(
        path=path,
        series=str(value_of(dataset, "SeriesInstanceUID", place) or ""),
        position=np.array(numbers("ImagePositionPatient", 3)),
        row=orientation[:3],
        column=orientation[3:],
        spacing_mm=(between_columns, between_rows),
        size=(int(number_of(dataset, "Columns", place, 0)), int(number_of(dataset, "Rows", place, 0))),
        thickness_mm=number_of(dataset, "SliceThickness", place, 1.0),
    )
