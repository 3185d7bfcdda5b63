"""Taking a volume's values at places between its voxels: linear for images, the nearest voxel for labels.

Beyond the volume's edges the edge is repeated. On a GPU this is torch's `grid_sample`. Its three-dimensional form has
no vector instructions on a CPU, its two-dimensional form has: there a volume is laid out as one tall picture with the
slices below one another, each place is looked up in two neighbouring slices at once, and the two are mixed. Equal to
the three-dimensional form but for rounding: places are exact to about 1e-7 of the picture's height, some 1e-3 voxel in
a volume of 160³.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch.nn import functional as F


class Places:
    """Places (3, X, Y, Z), in voxels of a volume of `shape`; results are of their size."""

    def __init__(self, places_3XYZ: torch.Tensor, shape: tuple[int, ...]) -> None:
        self.places, self.shape = places_3XYZ, shape

    def linear(self, volume_CXYZ: torch.Tensor) -> torch.Tensor:
        """Between the eight voxels around each place; float32."""
        if volume_CXYZ.device.type != "cpu":
            return F.grid_sample(
                volume_CXYZ[None], self._grid[None], mode="bilinear", padding_mode="border", align_corners=True
            )[0]
        channels = len(volume_CXYZ)
        in_picture, share = self._in_picture
        # Slice by slice with the one behind it; a volume of one slice has none.
        behind = volume_CXYZ[:, 1:] if self.shape[0] > 1 else volume_CXYZ
        front = volume_CXYZ[:, :-1] if self.shape[0] > 1 else volume_CXYZ
        pictures = torch.stack([front, behind], 1).view(1, 2 * channels, -1, self.shape[2])
        found = F.grid_sample(pictures, in_picture, mode="bilinear", padding_mode="border", align_corners=True)
        two = found.view(channels, 2, *self.places.shape[1:])
        return torch.lerp(two[:, 0], two[:, 1], share)

    def nearest(self, volume_XYZ: torch.Tensor) -> torch.Tensor:
        """The value of the nearest voxel, of the volume's type."""
        return volume_XYZ.flatten().index_select(0, self._nearest_index).view(self.places.shape[1:])

    @cached_property
    def _grid(self) -> torch.Tensor:
        """As `grid_sample` wants them, (X, Y, Z, 3): the last axis first, from -1 to 1 between the outer voxels."""
        scaled = [_from_minus_one(place, n) for place, n in zip(self.places, self.shape, strict=True)]
        return torch.stack(scaled[::-1], -1)

    @cached_property
    def _in_picture(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where in the picture (1, 1, X * Y * Z, 2), and the share of the slice behind (X, Y, Z)."""
        slices, height, width = self.shape
        x, y, z = (place.clamp(0, n - 1) for place, n in zip(self.places, self.shape, strict=True))
        first = x.floor().clamp_(max=max(slices - 2, 0))
        share = x.sub_(first)
        grid = torch.empty((*z.shape, 2))
        grid[..., 0] = _from_minus_one(z, width)
        grid[..., 1] = _from_minus_one(first.mul_(height).add_(y), max(slices - 1, 1) * height)
        return grid.view(1, 1, -1, 2), share

    @cached_property
    def _nearest_index(self) -> torch.Tensor:
        _, height, width = self.shape
        x, y, z = (place.round().clamp_(0, n - 1).int() for place, n in zip(self.places, self.shape, strict=True))
        return x.mul_(height).add_(y).mul_(width).add_(z).flatten()


def _from_minus_one(place: torch.Tensor, n: int) -> torch.Tensor:
    """0..n-1 as -1..1."""
    return place * (2 / max(n - 1, 1)) - 1
