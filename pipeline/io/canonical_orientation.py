"""The canonical orientation (RAS+): which axes are permuted and flipped to reach it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid


@dataclass(frozen=True)
class AxisMap:
    """Takes arrays to the canonical orientation and back, exactly: `permutation` of the axes, then `flips`.

    permutation[i] is the source axis that becomes axis i; flips[i] says whether axis i of the result is reversed.
    Arrays may carry leading axes (channels): only the last three are spatial.
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray) -> NDArray:
        """`array` in canonical orientation (a view)."""
        lead = array.ndim - 3
        axes = [*range(lead), *(lead + p for p in self.permutation)]
        return np.transpose(array, axes)[self._slices(lead)]

    def invert(self, array: NDArray) -> NDArray:
        """The inverse of `apply` (a view)."""
        lead = array.ndim - 3
        axes = [*range(lead), *(lead + int(p) for p in np.argsort(self.permutation))]
        return np.transpose(array[self._slices(lead)], axes)

    def _slices(self, lead: int) -> tuple[slice, ...]:
        return (slice(None),) * lead + tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)


def to_canonical(grid: Grid) -> tuple[AxisMap, Grid]:
    """The axis map to the closest RAS+ orientation, and the grid that results."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    orientation = io_orientation(grid.affine)
    permutation = tuple(int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3))
    flips = tuple(bool(orientation[source, 1] < 0) for source in permutation)
    axis_map = AxisMap(permutation, flips)  # type: ignore[arg-type]
    shape = tuple(grid.shape[p] for p in permutation)
    affine = grid.affine @ inv_ornt_aff(orientation, grid.shape)
    return axis_map, Grid(shape, affine)  # type: ignore[arg-type]
