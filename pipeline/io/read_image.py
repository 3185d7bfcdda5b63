"""Images of every kind of file: read a header, or all voxels as float32 with their grid.

What cannot be used is refused with an ImageFileError before memory is taken for its voxels. Arrays have nibabel's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io import raw_voxels
from pipeline.io.dicom import dicom_series
from pipeline.io.grid_difference import grid_difference
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import ITK_ENDINGS
from pipeline.io.image_header import ImageHeader
from pipeline.io.itk import read_metaimage_nrrd
from pipeline.io.read_image_header import read_image_header, refusals_as_faults
from pipeline.io.resample_to_grid import resample_to_grid
from pipeline.io.volume import Volume


def read_image(paths: Sequence[Path], resample_channels: bool = False) -> Volume:
    """One file per channel, or one file with all channels, as float32 (C, X, Y, Z), scaling applied.

    Grid and header are the first file's. Files on another grid are resampled onto it where `resample_channels` says
    so. An ImageFileError where a file cannot be used, or lies on another grid.
    """
    headers = [read_image_header(path) for path in paths]
    grid = headers[0].grid
    # All channels in one array from the start: joined at the end, they would be there twice.
    several = None if len(headers) == 1 else np.empty((sum(h.channels for h in headers), *grid.shape), np.float32)
    first = 0
    for header in headers:
        difference = grid_difference(grid, header.grid)
        if difference and not resample_channels:
            raise ImageFileError(
                header.path,
                "channel-grid",
                f"it lies on another grid than {headers[0].path.name}: {difference}",
                "resample it onto that grid, or set load.resample_channels: true",
            )
        array = image_voxels(header)
        if several is None:
            return Volume(array, grid, header.fields)
        several[first : first + header.channels] = resample_to_grid(array, header.grid, grid) if difference else array
        first += header.channels
    if several is None:
        raise AssertionError("an image without files")
    return Volume(several, grid, headers[0].fields)


def image_voxels(header: ImageHeader) -> NDArray[np.float32]:
    """All channels behind a header as float32 (C, X, Y, Z) in C order, scaling applied in float64."""
    raw, slope, intercept = stored_voxels(header)
    channels = np.moveaxis(raw, 3, 0) if raw.ndim == 4 else raw[None]
    array = np.empty((header.channels, *header.grid.shape), np.float32)
    for place in raw_voxels.cache_blocks(header.grid.shape):
        block = channels[(slice(None), *place)]
        scaled = block if (slope, intercept) == (1.0, 0.0) else block.astype(np.float64) * slope + intercept
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the checks name
            array[(slice(None), *place)] = scaled
    return array


def verify_readable(path: Path) -> None:
    """Reads all voxels as stored and forgets them; an ImageFileError where the file is damaged or ends too early."""
    stored_voxels(read_image_header(path))


def stored_voxels(header: ImageHeader) -> tuple[NDArray[Any], float, float]:
    """The voxels as the file stores them, with slope and intercept; raises an ImageFileError where it is damaged."""
    with refusals_as_faults(header.path):
        if header.kind == "dicom":
            return dicom_series.read_voxels(header.path), 1.0, 0.0
        if header.kind in ITK_ENDINGS:
            return read_metaimage_nrrd.read_voxels(header), 1.0, 0.0
        return raw_voxels.read_voxels(header)
