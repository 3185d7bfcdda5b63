"""Intensities as the network sees them: what `ChannelPlan` says, for one channel of one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.preprocessing.plan import ChannelPlan

_LEAST_STD = 1e-8
_SLAB_VOXELS = 1_000_000
"""At a time in float64."""


def make_normaliser(channel: ChannelPlan, image_XYZ: NDArray) -> Callable[[NDArray], NDArray[np.float32]]:
    """A function that normalises any part of `image_XYZ`, whose statistics (where the scheme needs them) it holds.

    Raises a DataError where the image has voxels that are not finite.
    """
    if channel.scheme == "none":
        return lambda part: part.astype(np.float32)
    if channel.scheme == "ct":
        lower, upper, middle, deviation = channel.lower, channel.upper, channel.mean, channel.std
        if lower is None or upper is None or middle is None or deviation is None:
            raise AssertionError(f"channel {channel.name} is planned as CT without its percentiles")
        return lambda part: _scaled(np.clip(part, lower, upper, dtype=np.float32), middle, deviation)
    mean, std = _mean_and_std(image_XYZ, channel.nonzero)
    if not np.isfinite(mean + std):
        raise DataError(f"channel {channel.name}: the image holds NaN or infinity; replace them, or exclude the case")
    if channel.nonzero:
        return lambda part: np.where(part != 0, _scaled(part.astype(np.float32), mean, std), np.float32(0))
    return lambda part: _scaled(part.astype(np.float32), mean, std)


def _scaled(part: NDArray[np.float32], mean: float, std: float) -> NDArray[np.float32]:
    part -= np.float32(mean)
    part /= np.float32(max(std, _LEAST_STD))
    return part


def _mean_and_std(image_XYZ: NDArray, nonzero: bool) -> tuple[float, float]:
    """Over all voxels, or those that are not 0, in float64 and slab by slab; 0 and 1 where there are none."""
    count, total = 0, 0.0
    for part in _parts(image_XYZ, nonzero):
        count, total = count + part.size, total + float(part.sum(dtype=np.float64))
    if count == 0:
        return 0.0, 1.0
    mean = total / count
    squares = sum(float(((part.astype(np.float64) - mean) ** 2).sum()) for part in _parts(image_XYZ, nonzero))
    return mean, float(np.sqrt(squares / count))


def _parts(image_XYZ: NDArray, nonzero: bool) -> Iterator[NDArray]:
    rows = max(_SLAB_VOXELS // max(image_XYZ[0].size, 1), 1)
    for first in range(0, image_XYZ.shape[0], rows):
        part = image_XYZ[first : first + rows]
        yield part[part != 0] if nonzero else part
