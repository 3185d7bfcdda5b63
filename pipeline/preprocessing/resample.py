"""Resampling onto a grid that covers the same box: one matrix per axis, applied slab by slab.

Voxel i of a target axis lies at source index (i + ½)·n/n' − ½ (`align_corners=False`), clamped at the ends. Linear and
cubic results are those of `scipy.ndimage.zoom(..., mode="nearest", grid_mode=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Shape, source_coordinates

Order = Literal[1, 3]

_SLAB_VOXELS = 2_000_000
"""Prepared at a time: little beside a large scan, whose predicted memory does not count it."""


@lru_cache(maxsize=64)
def axis_matrix(n_source: int, n_target: int, order: Order) -> NDArray[np.float32]:
    """The matrix (n_target, n_source) that resamples one axis; order 1 is linear, 3 a cubic spline."""
    if order == 1:
        at = np.clip(source_coordinates(n_source, n_target), 0, n_source - 1)
        low = np.minimum(np.floor(at).astype(int), max(n_source - 2, 0))
        matrix = np.zeros((n_target, n_source))
        rows = np.arange(n_target)
        np.add.at(matrix, (rows, low), 1 - (at - low))
        np.add.at(matrix, (rows, np.minimum(low + 1, n_source - 1)), at - low)
    else:
        from scipy import ndimage

        # The spline is linear in the samples, so its matrix is what it makes of the unit vectors.
        factors = (n_target / n_source, 1.0)
        matrix = ndimage.zoom(np.eye(n_source), factors, order=order, mode="nearest", grid_mode=True)
    weights = matrix.astype(np.float32)
    weights.flags.writeable = False
    return weights


def nearest_indices(n_source: int, n_target: int) -> NDArray[np.intp]:
    """For each voxel of a target axis the source voxel that it lies in."""
    return np.floor((np.arange(n_target) + 0.5) * (n_source / n_target)).astype(np.intp).clip(0, n_source - 1)


def resample_image(
    source: NDArray,
    shape: Shape,
    order: Order = 1,
    prepare: Callable[[NDArray], NDArray[np.float32]] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """A volume (X, Y, Z) on the grid of `shape` as float32, in `out` where that is given (in C order).

    prepare: applied to each slab of the source before resampling (normalisation), so that no prepared copy of the
    whole source is held. Memory: the result, one slab, and where X changes one intermediate of (X, Y', Z').
    """
    final = np.empty(shape, np.float32) if out is None else out
    same = source.shape[0] == shape[0]
    result = final if same else np.empty((source.shape[0], shape[1], shape[2]), np.float32)
    rows = max(_SLAB_VOXELS // max(source[0].size, 1), 1)
    for first in range(0, source.shape[0], rows):
        slab = source[first : first + rows]
        slab = np.ascontiguousarray(prepare(slab) if prepare else slab, np.float32)
        if slab.shape[2] != shape[2]:
            slab = slab @ axis_matrix(slab.shape[2], shape[2], order).T
        if slab.shape[1] != shape[1]:
            slab = np.matmul(axis_matrix(slab.shape[1], shape[1], order), slab)
        result[first : first + rows] = slab
    if not same:
        matrix = axis_matrix(source.shape[0], shape[0], order)
        np.matmul(matrix, result.reshape(source.shape[0], -1), out=final.reshape(shape[0], -1))
    return final


def resample_nearest(source: NDArray, shape: Shape) -> NDArray:
    """A label map (X, Y, Z) on the grid of `shape`, each voxel taken from the one that it lies in."""
    return source[np.ix_(*(nearest_indices(n, m) for n, m in zip(source.shape, shape, strict=True)))]


def resample_classes(source: NDArray, shape: Shape) -> NDArray:
    """A label map of exclusive classes (X, Y, Z) on the grid of `shape`: each class linearly, the largest share wins.

    Smoother than the nearest voxel. Background is what the others leave, and wins ties. Memory: two floats a voxel of
    the result and one class.
    """
    result = np.zeros(shape, source.dtype)
    largest, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for value, box in _boxes(source):
        target, share = _share(source[box] == value, box, source.shape, shape)
        better = share > largest[target]
        result[target][better] = value
        np.maximum(largest[target], share, out=largest[target])
        total[target] += share
    result[1 - total >= largest] = 0
    return result


def resample_bits(source: NDArray, shape: Shape, bits: int) -> NDArray:
    """A mask of overlapping structures, bit i for structure i: each linearly, a share above one half belongs to it."""
    result = np.zeros(shape, source.dtype)
    whole = tuple(slice(0, n) for n in source.shape)
    for bit in range(bits):
        mask = (source >> source.dtype.type(bit)) & source.dtype.type(1)
        if mask.any():
            target, share = _share(mask, whole, source.shape, shape)
            result[target] |= (share > 0.5).astype(source.dtype) << source.dtype.type(bit)
    return result


def _boxes(source: NDArray) -> list[tuple[int, tuple[slice, ...]]]:
    """Each class that occurs, in rising order, with the box of its voxels."""
    from scipy import ndimage

    return [(i + 1, box) for i, box in enumerate(ndimage.find_objects(source)) if box is not None]


def _share(
    mask: NDArray, box: tuple[slice, ...], source_shape: tuple[int, ...], shape: Shape
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """The linearly resampled `mask`, which lies at `box` of the source, and the box of the target that it reaches."""
    matrices = [axis_matrix(n, m, 1)[:, along] for n, m, along in zip(source_shape, shape, box, strict=True)]
    reached = [np.flatnonzero(matrix.any(axis=1)) for matrix in matrices]
    target = tuple(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0) for rows in reached)
    x, y, z = (matrix[along] for matrix, along in zip(matrices, target, strict=True))
    share = np.matmul(y, mask.astype(np.float32) @ z.T)
    return target, (x @ share.reshape(share.shape[0], -1)).reshape(x.shape[0], *share.shape[1:])
