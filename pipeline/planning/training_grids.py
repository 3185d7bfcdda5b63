"""Grids of the training cases in RAS+, as large as the planned crop leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dataset.loaded_cases import Case
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid, Shape, Spacing, resampled_grid
from pipeline.planning.target_spacing import median_shape
from pipeline.preprocessing.plan import ChannelPlan


def canonical_grids(cases: Sequence[Case], crop: str = "none") -> list[Grid]:
    """Each case's grid with RAS+ axes; with crop `nonzero` as large as what that keeps of it (its origin aside)."""
    shapes = [(case.nonzero_shape if crop == "nonzero" else None) or case.shape for case in cases]
    return [to_canonical(Grid(shape, np.array(case.affine)))[1] for case, shape in zip(cases, shapes, strict=True)]


@dataclass(frozen=True)
class GridPlan:
    """The planned grid and what happens to its voxels. grids: of the training cases, canonical and cropped."""

    spacing_mm: Spacing
    crop: str
    channels: tuple[ChannelPlan, ...]
    mirror_axes: tuple[int, ...]
    image_interpolation: str
    label_interpolation: str
    grids: tuple[Grid, ...]
    reasons: dict[str, str]

    @property
    def median_shape(self) -> Shape:
        """The median shape of the training cases on the planned grid."""
        return median_shape(self.grids, self.spacing_mm)

    @property
    def largest_shape(self) -> Shape:
        """The longest of each axis among the training cases on the planned grid."""
        x, y, z = (max(lengths) for lengths in zip(*self.planned_shapes(), strict=True))
        return x, y, z

    def planned_shapes(self) -> list[Shape]:
        """Of each training case on the planned grid."""
        return [resampled_grid(grid, self.spacing_mm).shape for grid in self.grids]
