"""The difference of two grids, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.io.geometry import Grid

GRID_TOLERANCE_MM = 0.1
"""Corner distance up to which two grids of one shape count as the same."""


def grid_difference(first: Grid, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> str | None:
    """How two grids differ (shape, spacing, direction or origin), in words; None where they are the same."""
    if first.shape != other.shape:
        return f"shape {_times(other.shape)} instead of {_times(first.shape)}"
    apart_mm = first.distance_mm(other)
    if apart_mm <= tolerance_mm:
        return None
    spacing = np.array(first.spacing_mm), np.array(other.spacing_mm)
    extent_mm = float((np.abs(spacing[0] - spacing[1]) * (np.array(first.shape) - 1)).max())
    if extent_mm > tolerance_mm:
        return f"spacing {_mm(other.spacing_mm)} instead of {_mm(first.spacing_mm)} mm"
    if first.axcodes != other.axcodes:
        return f"orientation {other.axcodes} instead of {first.axcodes}, up to {apart_mm:.1f} mm apart"
    directions = first.affine[:3, :3] / spacing[0] - other.affine[:3, :3] / spacing[1]
    if np.abs(directions).max() * max(first.shape) * max(first.spacing_mm) > tolerance_mm:
        return f"directions that are turned, up to {apart_mm:.1f} mm apart"
    shift = ", ".join(f"{x:.2f}" for x in other.affine[:3, 3] - first.affine[:3, 3])
    return f"an origin that is shifted by ({shift}) mm"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _mm(spacing_mm: Sequence[float]) -> str:
    return "×".join(f"{x:.4g}" for x in spacing_mm)
