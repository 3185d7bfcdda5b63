"""What of an image is not background: lines of voxels that hold something, and the box around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Crop = tuple[slice, slice, slice]
Lines = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]
"""For each axis, at which index a plane across it holds anything that is not background."""

# Air outside a body is below this in every CT, whatever the scanner writes beyond its field of view.
_CT_AIR_HU = -700.0


def foreground_profiles(channel_XYZ: NDArray, modality: str) -> Lines:
    """Where a channel is not background, along each axis; plane by plane, so that no copy of the volume is made.

    Background is the channel's smallest value, for CT whatever is less dense than -700 HU.
    """
    limit = _CT_AIR_HU if modality.upper() == "CT" else channel_XYZ.min()
    x, y, z = (np.zeros(n, bool) for n in channel_XYZ.shape)
    for i, plane_YZ in enumerate(channel_XYZ):
        kept = plane_YZ > limit
        along_y = kept.any(axis=1)
        x[i] = along_y.any()
        y |= along_y
        z |= kept.any(axis=0)
    return x, y, z


def bounding_box(channels: Sequence[Lines]) -> Crop:
    """The box of what is not background in at least one channel; the whole image where all is."""
    x, y, z = (_range(np.logical_or.reduce(lines)) for lines in zip(*channels, strict=True))
    return x, y, z


def _range(line: NDArray[np.bool_]) -> slice:
    found = np.flatnonzero(line)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, len(line))


def nonzero_box(image_CXYZ: NDArray, modalities: tuple[str, ...]) -> Crop:
    """The box of voxels that are not background in every channel; the whole image where all are.

    Background is a channel's smallest value, for CT whatever is less dense than -700 HU.
    """
    return bounding_box(
        [foreground_profiles(channel, modality) for channel, modality in zip(image_CXYZ, modalities, strict=True)]
    )
