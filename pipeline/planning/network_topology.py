"""Where voxels lie: target spacing, patch size, and how often each axis is halved.

Rules after nnU-Net (Isensee 2021), with the time for training in place of a fixed GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.case_index import Case
from pipeline.io.geometry import Grid, Shape, Spacing, resampled_grid, to_canonical

Triple = tuple[int, int, int]

# A spacing this many times another is anisotropic; a stage's axis is thick at twice the finest.
_ANISOTROPIC = 3.0
_THICK = 2.0
_SMALLEST_FEATURE_MAP = 4
_MOST_LEVELS = 6


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes per level, finest first."""

    strides: tuple[Triple, ...]
    kernel_size: tuple[Triple, ...]

    @property
    def divisor(self) -> Triple:
        """What sizes must be divisible by, per axis."""
        x, y, z = np.prod(self.strides, axis=0)
        return int(x), int(y), int(z)


def canonical_grids(cases: Sequence[Case], crop: str = "none") -> list[Grid]:
    """Each case's grid with RAS+ axes; with crop `nonzero` as large as what that keeps of it (its origin aside)."""
    shapes = [(case.nonzero_shape if crop == "nonzero" else None) or case.shape for case in cases]
    return [to_canonical(Grid(shape, np.array(case.affine)))[1] for case, shape in zip(cases, shapes, strict=True)]


def target_spacing(grids: Sequence[Grid]) -> tuple[Spacing, str]:
    """The median spacing per axis; along thick slices the 10th percentile, so that few cases lose any."""
    spacings = np.array([grid.spacing_mm for grid in grids])
    median = np.median(spacings, axis=0)
    thickest = int(median.argmax())
    others = np.delete(median, thickest).max()
    reason = f"median of {len(grids)} cases"
    if median[thickest] > _ANISOTROPIC * others:
        thin = max(float(np.percentile(spacings[:, thickest], 10)), float(others))
        if thin < 0.99 * median[thickest]:
            reason += f"; along {'RAS'[thickest]}, where slices are thick, the 10th percentile ({thin:.3g})"
            median[thickest] = thin
    x, y, z = (float(round(value, 4)) for value in median)
    return (x, y, z), reason


def median_shape(grids: Sequence[Grid], spacing_mm: Spacing) -> Shape:
    """The median shape on the planned grid."""
    shapes = np.array([resampled_grid(grid, spacing_mm).shape for grid in grids])
    x, y, z = (int(n) for n in np.ceil(np.median(shapes, axis=0)))
    return x, y, z


def open_patch(shape: Shape, spacing_mm: Spacing, voxels: int) -> NDArray[np.float64]:
    """A patch of about `voxels`, as near to a cube in mm as the image's median `shape` allows; not yet rounded."""
    limit, spacing = np.array(shape, float), np.array(spacing_mm)
    if limit.prod() <= voxels:
        return limit
    low, high = 0.0, float((limit * spacing).max())
    for _ in range(60):
        edge_mm = (low + high) / 2
        fits = np.minimum(limit, edge_mm / spacing).prod() <= voxels
        low, high = (edge_mm, high) if fits else (low, edge_mm)
    return np.minimum(limit, low / spacing)


def topology(patch: Sequence[float] | NDArray, spacing_mm: Spacing) -> Topology:
    """Halves each axis while it stays at least 4 voxels long, thick axes later than the others.

    Kernels are 1 across slices that are still at least twice as thick as the pixels, and 3 from then on.
    """
    size, spacing = np.array(patch, float), np.array(spacing_mm)
    strides: list[Triple] = [(1, 1, 1)]
    wide = spacing / spacing.min() < _THICK
    kernels = [_kernel(wide)]
    while len(strides) < _MOST_LEVELS:
        large = size >= 2 * _SMALLEST_FEATURE_MAP
        if not large.any():
            break
        halved = large & (spacing / spacing[large].min() < _THICK)
        size, spacing = np.where(halved, np.ceil(size / 2), size), np.where(halved, 2 * spacing, spacing)
        wide = wide | (spacing / spacing.min() < _THICK)
        x, y, z = (2 if half else 1 for half in halved)
        strides.append((x, y, z))
        kernels.append(_kernel(wide))
    while len(strides) < 3:  # the smallest network there is has three levels
        strides.append((1, 1, 1))
        kernels.append(_kernel(wide))
    return Topology(tuple(strides), tuple(kernels))


def rounded_patch(patch: Sequence[float] | NDArray, shape: Shape, divisor: Triple) -> Shape:
    """The patch in whole steps of `divisor`: up where it spans the image, so that the image fits in, else nearest.

    At least two steps along one axis, since a network cannot normalise a single voxel.
    """
    size = []
    for wanted, n, step in zip(patch, shape, divisor, strict=True):
        steps = math.ceil(wanted / step - 1e-6) if wanted >= n - 1e-6 else round(wanted / step)
        size.append(max(steps, 1) * step)
    if tuple(size) == divisor:
        size[int(np.argmax(np.array(shape) / divisor))] *= 2
    x, y, z = size
    return x, y, z


def _kernel(wide: NDArray[np.bool_]) -> Triple:
    x, y, z = (3 if each else 1 for each in wide)
    return x, y, z
