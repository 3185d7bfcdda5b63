"""Numbers of one image and its label map, in little memory: no copy of a whole large volume is made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_EXACT_BELOW = 2**22
"""Voxels up to which percentiles are exact; larger images are sampled on a regular lattice of about as many."""


def intensity(channel_XYZ: NDArray, foreground_XYZ: NDArray | None) -> dict[str, float]:
    """min, max, mean, std, p005, p50, p995 of an image, and `foreground_*` of its labelled voxels where it has any."""
    result = {"min": float(channel_XYZ.min()), "max": float(channel_XYZ.max())} | _moments(channel_XYZ, "")
    if foreground_XYZ is not None and foreground_XYZ.any():
        result |= _moments(channel_XYZ[foreground_XYZ], "foreground_")
    return result


def label_counts(label_XYZ: NDArray) -> dict[int, int]:
    """Label value to voxels, in order of value."""
    low, high = int(label_XYZ.min()), int(label_XYZ.max())
    if high - low >= 2**16:
        values, counts = np.unique(label_XYZ, return_counts=True)
        return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    counts = np.zeros(high - low + 1, np.int64)
    for plane in label_XYZ:
        counts += np.bincount((plane.astype(np.int64) - low).ravel(), minlength=len(counts))
    return {low + int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def components(label_XYZ: NDArray, structures: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Structure to its number of pieces that do not touch, not even at a corner."""
    from scipy import ndimage

    low, high = int(label_XYZ.min()), int(label_XYZ.max())
    if low < 0 or high >= 2**16:
        return {}
    boxes = ndimage.find_objects(label_XYZ.astype(np.int32, copy=False), max_label=high)
    result = {}
    for name, values in structures.items():
        places = [boxes[value - 1] for value in values if value <= high and boxes[value - 1] is not None]
        if not places:
            result[name] = 0
            continue
        box = tuple(slice(min(p[a].start for p in places), max(p[a].stop for p in places)) for a in range(3))
        result[name] = int(ndimage.label(np.isin(label_XYZ[box], values), np.ones((3, 3, 3)))[1])
    return result


def _moments(values: NDArray, prefix: str) -> dict[str, float]:
    planes = values if values.ndim == 3 else [values]
    total = sum(float(plane.sum(dtype=np.float64)) for plane in planes)
    mean = total / values.size
    squares = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in planes)
    step = max(1, round((values.size / _EXACT_BELOW) ** (1 / values.ndim)))
    low, middle, high = np.percentile(values[(slice(None, None, step),) * values.ndim], [0.5, 50, 99.5])
    named = {
        "mean": mean,
        "std": float(np.sqrt(squares / values.size)),
        "p005": float(low),
        "p50": float(middle),
        "p995": float(high),
    }
    return {prefix + name: value for name, value in named.items()}
