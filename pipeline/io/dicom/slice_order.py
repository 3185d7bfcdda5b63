"""Order of the slices of a series along their normal, their faults, and the grid that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.io.check_image_header import checked_grid
from pipeline.io.dicom.dicom_file import (
    EXPORT_AGAIN,
)
from pipeline.io.dicom.dicom_slice import DicomSlice
from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_PLACE_MM = 0.01
_SHARE_OF_STEP = 0.05
"""Distances between slices may differ by this share of the usual one; more means that slices are missing."""
_SIDEWAYS_MM = 0.1
_ALONE = "export the volume alone"


@dataclass(frozen=True)
class Series:
    """The slices of one volume from one end to the other, and the grid that they make (x: columns, y: rows, z)."""

    slices: tuple[DicomSlice, ...]
    grid: Grid


def order_slices(slices: Sequence[DicomSlice], place: Path) -> Series:
    """Sorts slices along their normal and makes their grid.

    An ImageFileError, with counts and millimetres, where there are several series or volumes, slices of different size
    or direction, two at one place, a gap, or a tilted gantry.
    """
    _check_one_volume(slices, place)
    ordered = sorted(slices, key=lambda entry: entry.height_mm)
    _check_steps(ordered, place)
    return Series(tuple(ordered), _grid(ordered, place))


def _check_one_volume(slices: Sequence[DicomSlice], place: Path) -> None:
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


def _check_steps(ordered: Sequence[DicomSlice], place: Path) -> None:
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


def _check_one_line(ordered: Sequence[DicomSlice], usual_mm: float, place: Path) -> None:
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


def _grid(ordered: Sequence[DicomSlice], place: Path) -> Grid:
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
