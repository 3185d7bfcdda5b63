"""Grids in patient space: shape, affine, spacing, and the grid of another spacing.

Arrays have nibabel's axes (x, y, z); affines take voxel indices to RAS+ millimetres. Inside the pipeline a volume
lies in its closest canonical orientation, reached by permuting and flipping axes only: oblique data is never rotated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: `shape` along x, y, z and the 4×4 `affine` from voxel index to RAS+ mm."""

    shape: Shape
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along each array axis."""
        x, y, z = np.sqrt((np.asarray(self.affine)[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def axcodes(self) -> str:
        """The anatomical direction of each array axis, for instance RAS or LPS."""
        from nibabel.orientations import aff2axcodes  # takes time to import, and not everything asks for it

        return "".join(aff2axcodes(self.affine))

    @property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the grid and the axis of the body that it is closest to."""
        directions = np.abs(self.affine[:3, :3] / np.array(self.spacing_mm))
        return float(np.degrees(np.arccos(np.clip(directions.max(axis=0).min(), 0.0, 1.0))))

    def close_to(self, other: Grid, tolerance_mm: float = 0.01) -> bool:
        """True where shapes are equal and no corner voxel's centre differs by more than `tolerance_mm`."""
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between corresponding corner voxels of two grids, measured over this one's corners."""
        last = np.array(self.shape) - 1
        corners = np.array([[i, j, k, 1] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]).T
        return float(np.linalg.norm((self.affine @ corners - other.affine @ corners)[:3], axis=0).max())


def resampled_grid(grid: Grid, spacing_mm: Spacing) -> Grid:
    """The grid that covers the same box as `grid` with voxels of about `spacing_mm`.

    Each axis has round(n·s / s') voxels, at least one (nnU-Net's rule); outer voxel faces stay where they are, so the
    true spacing is box / n. Voxel i of the new axis lies at old index (i + ½)·n/n' − ½ (`align_corners=False`).
    """
    old, new_mm = np.array(grid.shape), np.array(spacing_mm)
    shape = np.maximum(np.rint(old * np.array(grid.spacing_mm) / new_mm), 1).astype(int)
    scale = old / shape
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = 0.5 * scale - 0.5
    return Grid(tuple(int(n) for n in shape), grid.affine @ to_old)  # type: ignore[arg-type]


def source_coordinates(n_source: int, n_target: int) -> NDArray[np.float64]:
    """For each voxel of a target axis its (fractional) index on the source axis; both cover the same box."""
    return (np.arange(n_target, dtype=np.float64) + 0.5) * (n_source / n_target) - 0.5
