"""An image or label map in memory with the grid that it lies on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid


@dataclass(frozen=True)
class Volume:
    """An array (C, X, Y, Z) of an image, or (X, Y, Z) of a label map, on its `grid`.

    `header` carries what a writer needs to give the same kind of file back (qform and sform with codes, units,
    description, original file kind); its keys belong to `pipeline.io.read_image`.
    """

    array: NDArray[Any]
    grid: Grid
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.shape[-3:] != self.grid.shape:
            raise AssertionError(f"array {self.array.shape} does not lie on a grid of shape {self.grid.shape}")

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Another array on the same grid, for instance a prediction for this image."""
        return Volume(np.asarray(array), self.grid, self.header)
