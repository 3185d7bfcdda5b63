"""A folder with one DICOM series as a volume, put together by geometry: where each slice says that it lies.

File names, instance numbers and slice thickness are not believed. Messages give counts and millimetres, never a file's
name (often a UID) nor an identifier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.dicom import jpeg_lossless
from pipeline.io.dicom.dicom_file import (
    EXPORT_AGAIN,
    damaged_file,
    dicom_read_errors,
    is_dicom,
    number_of,
    read_attributes,
    value_of,
    visible_files,
)
from pipeline.io.dicom.patient_names import display_path
from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_header import ImageHeader, checked_grid, refuse_if_larger_than_memory

if TYPE_CHECKING:
    from pydicom import Dataset

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PLACE = (
    *("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("NumberOfFrames", "Columns", "Rows"),
)
_SAME_PLACE_MM = 0.01
_SHARE_OF_STEP = 0.05
"""Distances between slices may differ by this share of the usual one; more means that slices are missing."""
_SIDEWAYS_MM = 0.1
_ALONE = "export the volume alone"


@dataclass(frozen=True)
class Slice:
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


@dataclass(frozen=True)
class Series:
    """The slices of one volume from one end to the other, and the grid that they make (x: columns, y: rows, z)."""

    slices: tuple[Slice, ...]
    grid: Grid


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
        array[:, :, index] = _pixels(entry.path, display_path(folder))
    return array


def open_series(folder: Path) -> Series:
    """The slices of the series in `folder`, in order, without their pixels; an ImageFileError as `order_slices`."""
    paths = [path for path in visible_files(folder) if is_dicom(path)]
    place = display_path(folder)
    if not paths:
        raise ImageFileError(place, "no-dicom", "no DICOM file lies in this folder", "name the folder with the series")
    return order_slices([_read_slice(path, place) for path in paths], place)


def order_slices(slices: Sequence[Slice], place: Path) -> Series:
    """Sorts slices along their normal and makes their grid.

    An ImageFileError, with counts and millimetres, where there are several series or volumes, slices of different size
    or direction, two at one place, a gap, or a tilted gantry.
    """
    _check_one_volume(slices, place)
    ordered = sorted(slices, key=lambda entry: entry.height_mm)
    _check_steps(ordered, place)
    return Series(tuple(ordered), _grid(ordered, place))


def _read_slice(path: Path, place: Path) -> Slice:
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
    return Slice(
        path=path,
        series=str(value_of(dataset, "SeriesInstanceUID", place) or ""),
        position=np.array(numbers("ImagePositionPatient", 3)),
        row=orientation[:3],
        column=orientation[3:],
        spacing_mm=(between_columns, between_rows),
        size=(int(number_of(dataset, "Columns", place, 0)), int(number_of(dataset, "Rows", place, 0))),
        thickness_mm=number_of(dataset, "SliceThickness", place, 1.0),
    )


def _pixels(path: Path, place: Path) -> NDArray[np.float32]:
    """One slice (X, Y), decoded, with rescale slope and intercept applied."""
    dataset = read_attributes(path, place)
    colours = "PALETTE" in str(value_of(dataset, "PhotometricInterpretation", place))
    if colours or (value_of(dataset, "SamplesPerPixel", place) or 1) != 1:
        raise ImageFileError(place, "colours", "its pixels are colours", "a scan has one number per pixel: export that")
    unreadable: tuple[type[Exception], ...] = (AttributeError, RuntimeError, *dicom_read_errors())
    try:
        stored = _without_unused_bits(_decoded(dataset), value_of(dataset, "BitsStored", place))
    except unreadable:
        raise ImageFileError(
            place, "dicom-pixels", "pixels of one of its files cannot be decoded", EXPORT_AGAIN
        ) from None
    slope, intercept = number_of(dataset, "RescaleSlope", place, 1), number_of(dataset, "RescaleIntercept", place, 0)
    return (stored.T * slope + intercept).astype(np.float32)


def _decoded(dataset: Dataset) -> NDArray[Any]:
    """Pixels (Y, X) as stored."""
    from pydicom.encaps import get_frame

    if dataset.file_meta.TransferSyntaxUID not in jpeg_lossless.SYNTAXES:
        return dataset.pixel_array
    pixels = jpeg_lossless.decode(get_frame(dataset.PixelData, 0, number_of_frames=1), (dataset.Rows, dataset.Columns))
    return pixels.astype(f"{'iu'[dataset.PixelRepresentation == 0]}{dataset.BitsAllocated // 8}")


def _without_unused_bits(stored: NDArray[Any], bits: int | None) -> NDArray[Any]:
    """Whole numbers of fewer bits than their type has: what lies in the others (overlays, in old files) is dropped."""
    unused = 0 if bits is None or stored.dtype.kind == "f" else 8 * stored.itemsize - bits
    return (stored << unused) >> unused if unused > 0 else stored


def _check_one_volume(slices: Sequence[Slice], place: Path) -> None:
    counts = Counter(entry.series for entry in slices)
    if len(counts) > 1:
        sizes = " and ".join(str(count) for _, count in counts.most_common())
        found = f"the folder holds {len(counts)} DICOM series, of {sizes} files"
        raise ImageFileError(place, "dicom-mixed", found, "give each series its own folder")
    first = slices[0]
    for other in slices[1:]:
        if other.size != first.size or not np.allclose(other.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise ImageFileError(place, "dicom-mixed", "its slices differ in size or pixel spacing", _ALONE)
        if not (np.allclose(other.row, first.row, atol=1e-3) and np.allclose(other.column, first.column, atol=1e-3)):
            raise ImageFileError(
                place, "dicom-mixed", "its slices lie in different directions, as a scout's do", _ALONE
            )


def _check_steps(ordered: Sequence[Slice], place: Path) -> None:
    if len(ordered) < 2:
        return
    heights = np.array([entry.height_mm for entry in ordered])
    steps = np.diff(heights)
    doubled = heights[1:][steps < _SAME_PLACE_MM]
    if doubled.size:
        found = f"two slices lie at one place, {doubled.size} time(s): at {_places(doubled)}"
        cure = "files are doubled, or it holds several volumes (echoes, phases, times): export one volume"
        raise ImageFileError(place, "dicom-doubled", found, cure)
    usual = float(np.median(steps))
    gaps = np.flatnonzero(np.abs(steps - usual) > max(_SHARE_OF_STEP * usual, _SAME_PLACE_MM))
    if gaps.size:
        missing = sum(max(round(float(steps[gap]) / usual) - 1, 0) for gap in gaps)
        what = f"{missing} slice(s) are missing" if missing else "slices lie at unequal distances"
        found = f"{what}, after {_places(heights[gaps])}: {steps[gaps[0]]:.3g} mm where {usual:.3g} mm is usual"
        raise ImageFileError(place, "dicom-gap", found, EXPORT_AGAIN)
    _check_one_line(ordered, usual, place)


def _check_one_line(ordered: Sequence[Slice], usual_mm: float, place: Path) -> None:
    """First voxels of all slices lie on one line: a table that was moved sideways between slices shifts them."""
    positions, normal = np.array([entry.position for entry in ordered]), ordered[0].normal
    steps = np.arange(len(ordered))[:, None] / (len(ordered) - 1)
    beside = positions - (positions[0] + steps * (positions[-1] - positions[0]))
    beside -= (beside @ normal)[:, None] * normal
    off_mm = np.linalg.norm(beside, axis=1)
    if off_mm.max() > max(_SHARE_OF_STEP * usual_mm, _SIDEWAYS_MM):
        found = f"slices are shifted sideways by up to {off_mm.max():.3g} mm against one another, as of two positions"
        raise ImageFileError(place, "dicom-shifted", found, "export each position as a series of its own")


def _places(heights: NDArray) -> str:
    shown = ", ".join(f"{height:.1f}" for height in heights[:3])
    return f"{shown}{', …' if len(heights) > 3 else ''} mm"


def _grid(ordered: Sequence[Slice], place: Path) -> Grid:
    """The grid in RAS+ mm. The step from slice to slice is what positions say, not the stated thickness."""
    first, last = ordered[0], ordered[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing_mm[0]
    affine[:3, 1] = first.column * first.spacing_mm[1]
    if len(ordered) > 1:
        affine[:3, 2] = (last.position - first.position) / (len(ordered) - 1)
    else:
        affine[:3, 2] = first.normal * first.thickness_mm
    affine[:3, 3] = first.position
    return checked_grid(place, (*first.size, len(ordered)), LPS_TO_RAS @ affine)
