"""Faults that show before a voxel is read: paths, headers, implausible voxels, channels missing or on other grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import safe_join
from pipeline.dataset.checks.faults import Report
from pipeline.io.geometry import Grid
from pipeline.io.grid_difference import grid_difference
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_header import ImageHeader
from pipeline.io.read_image_header import read_image_header

_SPACING_LIMITS_MM = 0.02, 50.0


def check_header(report: Report, root: Path, file: str) -> ImageHeader | None:
    """The header of a file below `root`, with what it says of itself that is doubtful; None where it is refused."""
    try:
        header = read_image_header(safe_join(root, file))
    except ImageFileError as fault:
        report.refused(file, fault)
        return None
    except DataError:
        found = f"its path {file!r} is absolute or leaves the data root"
        report.add("fatal", file, "path", found, "give a path below data.root, without '..'")
        return None
    for note in header.notes:
        report.add("fixable", file, note.code, note.found, note.cure)
    _check_plausible(report, header.grid, file)
    return header


def check_channels(
    report: Report,
    headers: Sequence[ImageHeader | None],
    files: Sequence[str],
    channels: Sequence[str],
    resampled: bool,
) -> None:
    """The number of channels, and their common grid. channels: those meant. resampled: other grids are allowed."""
    known = [(header, file) for header, file in zip(headers, files, strict=True) if header is not None]
    if len(known) == len(headers):
        _check_count(report, known, channels)
    for header, file in known[1:]:
        if difference := grid_difference(known[0][0].grid, header.grid):
            found = f"it lies on another grid than {known[0][1]}: {difference}"
            if resampled:
                report.add("fixable", file, "channel-grid", found, "it is resampled (load.resample_channels)")
            else:
                cure = "resample it onto that grid, or set load.resample_channels: true"
                report.add("fatal", file, "channel-grid", found, cure)


def check_label_grid(report: Report, label: str | None, image_grid: Grid, grid: Grid, tolerance_mm: float) -> None:
    """Image and label lie on one grid, corner by corner within `tolerance_mm`."""
    if difference := grid_difference(image_grid, grid, tolerance_mm):
        found = f"image and label lie on different grids: the label has {difference}"
        cure = "resample the label onto the image's grid (nearest neighbour), or find the image that it was drawn on"
        if image_grid.shape == grid.shape:  # a label whose header was lost has voxels that need no resampling
            cure = f"if it was drawn on this image voxel by voxel, copy the image's header onto it; else {cure}"
        report.add("fatal", label, "label-grid", found, cure)


def _check_plausible(report: Report, grid: Grid, file: str) -> None:
    low, high = _SPACING_LIMITS_MM
    if min(grid.spacing_mm) < low or max(grid.spacing_mm) > high:
        shown = "×".join(f"{x:.4g}" for x in grid.spacing_mm)
        found = f"a voxel of {shown} mm is hardly one of a patient"
        report.add("warning", file, "spacing", found, "check the unit of its header (mm is meant)")
    if min(grid.shape) == 1:
        report.add("warning", file, "single-slice", "it has a single slice", "check that a 3D scan is meant")


def _check_count(report: Report, known: Sequence[tuple[ImageHeader, str]], channels: Sequence[str]) -> None:
    count, listed = sum(header.channels for header, _ in known), ", ".join(channels)
    if count < len(channels):
        report.add(
            "fatal",
            None,
            "missing-channel",
            f"{count} of {len(channels)} channels are there; missing: {', '.join(channels[count:])}",
            "give one file per channel in the manifest's order, or one 4D file",
        )
    for header, file in known if count > len(channels) else ():
        if header.may_be_colours:
            report.add(
                "fatal",
                file,
                "colour",
                f"it is a colour image: {header.per_voxel} bytes a voxel, where {len(channels)} channel(s) ({listed}) "
                "are meant",
                "convert it to grey values, or give the scan it was drawn from; if the bytes are channels, declare "
                "each in the manifest",
            )
        elif header.channels > 1:
            report.add(
                "fatal",
                file,
                "4d",
                f"it is 4D with {header.channels} volumes; {len(channels)} ({listed}) are meant",
                "write the volume that is meant as a 3D file, or declare all as channels",
            )
    if count > len(channels) and all(header.channels == 1 for header, _ in known):
        report.add(
            "fatal",
            None,
            "extra-channel",
            f"{count} images are listed for {len(channels)} channel(s) ({listed})",
            "list one file per channel, or declare the others",
        )
