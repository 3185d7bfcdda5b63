"""Label maps read as whole numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_header import ImageHeader
from pipeline.io.raw_voxels import cache_blocks
from pipeline.io.read_image import stored_voxels
from pipeline.io.read_image_header import read_image_header
from pipeline.io.volume import Volume

_ROUNDING = 1e-3
"""What calculations in floating point, or a slope in float32, may leave of noise on a whole number."""


def read_label(path: Path) -> Volume:
    """A label map as integers (X, Y, Z); an ImageFileError where values are not whole numbers or there are 4 axes."""
    header = read_image_header(path)
    return Volume(label_voxels(header), header.grid, header.fields)


def label_voxels(header: ImageHeader) -> NDArray[Any]:
    """The label values behind a header, in C order."""
    if header.may_be_colours:
        raise ImageFileError(
            header.path,
            "colour",
            f"it is a colour image ({header.per_voxel} bytes a voxel), not a label map",
            "write it with one label value a voxel, each colour as a value of its own",
        )
    if header.channels > 1:
        raise ImageFileError(
            header.path,
            "label-4d",
            f"it is a label map with {header.channels} volumes; one is meant",
            "merge them into one map of label values",
        )
    raw, slope, intercept = stored_voxels(header)
    if (slope, intercept) != (1.0, 0.0):
        raw = raw * slope + intercept
    if raw.dtype.kind == "f":
        raw = _whole(header.path, raw)
    elif raw.dtype.kind == "b":
        raw = raw.astype(np.uint8)
    array = np.empty(raw.shape, raw.dtype.newbyteorder("="))
    for place in cache_blocks(header.grid.shape):
        array[place] = raw[place]
    return array


def _whole(path: Path, values: NDArray[Any]) -> NDArray[np.int32]:
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ImageFileError(
            path,
            "label-not-finite",
            f"{bad:,} of its voxels are NaN or infinite; label values are whole numbers",
            "set these voxels to 0 or to their structure",
        )
    nearest = np.rint(values)
    uneven = values[values != nearest]  # few, if any: of these alone differences are taken
    fractions = uneven[np.abs(uneven - np.rint(uneven)) > _ROUNDING]
    if fractions.size:
        raise ImageFileError(
            path,
            "label-not-integer",
            f"{fractions.size:,} of its voxels are not whole numbers (for instance {float(fractions.flat[0]):g}): it "
            "is a probability map, or was interpolated linearly",
            "make it again with nearest-neighbour interpolation, or apply a threshold",
        )
    if np.abs(nearest).max(initial=0) >= 2**31:
        raise ImageFileError(path, "label-range", "its label values are beyond 2147483647", "renumber them")
    return nearest.astype(np.int32)
