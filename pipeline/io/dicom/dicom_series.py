"""A folder with one DICOM series as a volume, put together by geometry: where each slice says that it lies.

File names, instance numbers and slice thickness are not believed. Messages give counts and millimetres, never a file's
name (often a UID) nor an identifier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.io.check_image_header import refuse_if_larger_than_memory
from pipeline.io.dicom.decode_pixels import decode_slice
from pipeline.io.dicom.dicom_file import (
    is_dicom,
    visible_files,
)
from pipeline.io.dicom.dicom_slice import read_slice
from pipeline.io.dicom.patient_names import display_path
from pipeline.io.dicom.slice_order import Series, order_slices
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_header import ImageHeader


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
    return order_slices([read_slice(path, place) for path in paths], place)
