"""Taking a volume's values at places between its voxels: linear for images, the nearest voxel for labels.

Beyond the volume's edges the edge is repeated. On a GPU this is torch's `grid_sample`. Its three-dimensional form has
no vector instructions on a CPU, its two-dimensional form has: there a volume is seen as one tall picture with the
slices below one another, each place is looked up in two neighbouring slices at once, and the two are mixed. Equal to
the three-dimensional form but for rounding: places are exact to about 1e-7 of the picture's height, some 1e-3 voxel
where 30,000 rows of a scan are seen, and 1e-2 where 100,000 are. Volumes may be views into larger ones: nothing is
copied.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch.nn import functional as F

_MINUS_ONE = torch.tensor(-1.0)
EXACT = 2**24
"""Below it every whole number is a float32."""


class SamplingGrid:
    """Places (3, X, Y, Z), in voxels of a volume of `shape`; results are of their size. They are not to be changed.

    exact: from so many voxels on they are counted in whole numbers.
    """

    def __init__(self, places_3XYZ: torch.Tensor, shape: tuple[int, ...], exact: int = EXACT) -> None:
        self.places, self.shape, self.exact = places_3XYZ, shape, exact

    def linear(self, volume_CXYZ: torch.Tensor) -> torch.Tensor:
        """Between the eight voxels around each place; float32."""
        if volume_CXYZ.device.type != "cpu":
            return F.grid_sample(
                volume_CXYZ[None], self.from_minus_one[None], mode="bilinear", padding_mode="border", align_corners=True
            )[0]
        volume_CXYZ = _in_rows(volume_CXYZ)
        channels, slices, height, width = volume_CXYZ.shape
        to_channel, to_slice, to_row, _ = volume_CXYZ.stride()
        if slices == 1:
            rows, share = self._rows(0)
            pictures = volume_CXYZ
        else:
            # Each slice's rows with those of the slice behind it: two pictures in the same memory.
            rows, share = self._rows(to_slice // to_row)
            height += (slices - 2) * (to_slice // to_row)
            pictures = volume_CXYZ.as_strided((channels, 2, height, width), (to_channel, to_slice, to_row, 1))
        # Both coordinates apart from one another, as the kernel likes them; the picture's border clamps z.
        grid = torch.empty((2, rows.numel()))
        _from_minus_one(self.places[2].reshape(-1), width, out=grid[0])
        _from_minus_one(rows, height, out=grid[1])
        found = F.grid_sample(
            pictures, grid.t()[None, None].expand(channels, -1, -1, -1), padding_mode="border", align_corners=True
        ).unflatten(3, self.places.shape[1:])[:, :, 0]
        return found[:, 0] if slices == 1 else torch.lerp(found[:, 0], found[:, 1], share)

    def nearest(self, volume_XYZ: torch.Tensor) -> torch.Tensor:
        """The value of the nearest voxel, of the volume's type."""
        steps = volume_XYZ.stride()
        length = 1 + sum(step * (n - 1) for step, n in zip(steps, self.shape, strict=True))
        x, y, z = (place.round() for place in self._inside)
        if length < self.exact:
            index = z.mul_(steps[2]).add_(y, alpha=steps[1]).add_(x, alpha=steps[0]).to(torch.int32)
        else:
            x, y, z = (axis.to(torch.int64) for axis in (x, y, z))
            index = z.mul_(steps[2]).add_(y, alpha=steps[1]).add_(x, alpha=steps[0])
        return volume_XYZ.as_strided((length,), (1,)).index_select(0, index.view(-1)).view(self.places.shape[1:])

    @cached_property
    def _inside(self) -> list[torch.Tensor]:
        """Along each axis the places, those beyond the volume moved to its edge."""
        return [place.clamp(0, n - 1) for place, n in zip(self.places, self.shape, strict=True)]

    @cached_property
    def from_minus_one(self) -> torch.Tensor:
        """As `grid_sample` wants them, (X, Y, Z, 3): the last axis first, from -1 to 1 between the outer voxels."""
        scaled = [_from_minus_one(place, n) for place, n in zip(self.places, self.shape, strict=True)]
        return torch.stack(scaled[::-1], -1)

    def _rows(self, rows_per_slice: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the picture (X * Y * Z), and the share of the slice behind (X, Y, Z)."""
        x, y, _ = self._inside
        first = x.floor().clamp_(max=max(self.shape[0] - 2, 0))  # so that there is a slice behind
        return torch.add(y, first, alpha=rows_per_slice).view(-1), x - first


def _in_rows(volume_CXYZ: torch.Tensor) -> torch.Tensor:
    """The volume if its slices are the same whole number of rows apart, as a view into a larger one's is, or a copy."""
    _, _, height, width = volume_CXYZ.shape
    _, to_slice, to_row, to_voxel = volume_CXYZ.stride()
    regular = to_voxel == 1 and to_row >= width and to_slice % to_row == 0 and to_slice // to_row >= height
    return volume_CXYZ if regular else volume_CXYZ.clone(memory_format=torch.contiguous_format)


def _from_minus_one(place: torch.Tensor, n: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """0..n-1 as -1..1."""
    return torch.add(_MINUS_ONE, place, alpha=2 / max(n - 1, 1), out=out)
