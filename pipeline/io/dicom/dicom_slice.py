"""One slice of a DICOM series: its place, its direction and its pixels' size, from the attributes of one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.io.dicom.dicom_file import damaged_file, dicom_read_errors, number_of, read_attributes, value_of
from pipeline.io.image_file_error import ImageFileError

_PLACE = (
    *("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("NumberOfFrames", "Columns", "Rows"),
)


@dataclass(frozen=True)
class DicomSlice:
    """One file of a series: where its first pixel lies (LPS mm), and its row and column directions."""

    path: Path
    series: str
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    """Between columns (along a row), then between rows."""
    size: tuple[int, int]
    """Columns, rows."""
    thickness_mm: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.row, self.column)

    @property
    def height_mm(self) -> float:
        """Where the slice lies along its normal."""
        return float(self.position @ self.normal)


def read_slice(path: Path, place: Path) -> DicomSlice:
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
