"""Target spacing, and the shapes that cases have on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.io.geometry import Grid, Shape, Spacing, resampled_grid

# A spacing this many times another is anisotropic.
_ANISOTROPIC = 3.0


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


def pinned_spacing_reason(pin: Spacing, open_mm: Spacing) -> str:
    ratio = float(np.prod(open_mm) / np.prod(pin))
    shown = ", ".join(f"{value:.4g}" for value in open_mm)
    return f"pinned; open it would be [{shown}]: {ratio:.2g} times the voxels, in the store and at inference"
