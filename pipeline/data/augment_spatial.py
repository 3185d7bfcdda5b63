"""What augmentation does to positions: one affine map and one elastic displacement per sample, through one grid.

All in millimetres around the patch's centre, so that voxels of any shape are turned without shear. A grid holds, for
each voxel of the result, where it is taken from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline.data.augment_config import AugmentConfig
from pipeline.data.geometry import Shape, Spacing
from pipeline.data.resample import axis_matrix

# Slices this much thicker than the pixels are not mixed with one another, as in nnU-Net.
_THICK = 3.0


@dataclass(frozen=True)
class Spatial:
    """What happens to the positions of one sample.

    matrix: from the result's to the input's position, in mm around the centre; None for the identity. displacement:
    mm at control points (3, a, b, c), which span the patch. flips: along which axes the result is reversed.
    """

    matrix: NDArray[np.float64] | None
    displacement: NDArray[np.float32] | None
    flips: tuple[bool, bool, bool]

    @property
    def moves(self) -> bool:
        """Whether voxels have to be interpolated."""
        return self.matrix is not None or self.displacement is not None


def draw_spatial(
    rng: np.random.Generator,
    config: AugmentConfig,
    mirror_axes: Collection[int],
    spacing_mm: Spacing,
    patch_size: Shape,
) -> Spatial:
    """Draws what happens to one sample; always takes equally many numbers from `rng`."""
    affine, elastic = config.affine, config.elastic
    turned = rng.random() < affine.prob
    angles = np.deg2rad(rng.uniform(-affine.rotation_degrees, affine.rotation_degrees, 3))
    low, high = np.log(affine.scale)
    scales = np.exp(rng.uniform(low, high, 3))
    bent = rng.random() < elastic.prob
    std_mm = rng.uniform(*elastic.magnitude_mm)
    flips = rng.random(3) < config.flip_prob
    points_seed = int(rng.integers(2**62))
    displacement = None
    if bent:
        points = [
            max(math.ceil(n * s / elastic.spacing_mm) + 1, 2) for n, s in zip(patch_size, spacing_mm, strict=True)
        ]
        displacement = np.random.default_rng(points_seed).normal(0.0, std_mm, (3, *points)).astype(np.float32)
    matrix = None
    if turned:
        scale = scales if affine.scale_per_axis else np.full(3, scales[0])
        matrix = rotation(np.where(_rotatable(spacing_mm), angles, 0.0)) @ np.diag(1 / scale)
    x, y, z = (bool(flips[axis] and axis in mirror_axes) for axis in range(3))
    return Spatial(matrix, displacement, (x, y, z))


def rotation(angles: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation by `angles` (radians) about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def spatial_margin(config: AugmentConfig, patch_size: Shape, spacing_mm: Spacing) -> Shape:
    """Voxels around a patch that turning and shrinking may show in it, at the most (elastic displacement aside)."""
    if not config.enabled or config.affine.prob == 0:
        return 0, 0, 0
    half_mm = np.array(patch_size) * np.array(spacing_mm) / 2
    angle = np.deg2rad(min(config.affine.rotation_degrees, 45.0))
    thick = _rotatable(spacing_mm)
    reach_mm = half_mm.copy()
    for axis in range(3):
        for other in range(3):
            about = 3 - axis - other
            if other != axis and thick[about]:
                reach_mm[axis] += np.sin(angle) * half_mm[other]
    wanted = (reach_mm / config.affine.scale[0] - half_mm) / np.array(spacing_mm)
    # The furthest corners are rare and every patch would pay for them: a quarter of the patch is enough.
    most = np.array(patch_size) / 4
    x, y, z = (math.ceil(extra) for extra in np.minimum(wanted, most))
    return x, y, z


def resample(
    image_BCXYZ: torch.Tensor,
    label_BXYZ: torch.Tensor,
    drawn: Sequence[Spatial],
    size: Shape,
    spacing_mm: Spacing,
    linear_label: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (linear) and label (nearest, or linear per class) of `size` through one grid; edges are repeated."""
    source_shape: Shape = tuple(image_BCXYZ.shape[2:])  # type: ignore[assignment]
    grid = sampling_grid(drawn, size, source_shape, spacing_mm, image_BCXYZ.device)
    image = F.grid_sample(image_BCXYZ, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if linear_label:
        return image, _largest_share(label_BXYZ, grid)
    moved = F.grid_sample(label_BXYZ[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return image, moved[:, 0].to(label_BXYZ.dtype)


def sampling_grid(
    drawn: Sequence[Spatial], size: Shape, source_shape: Shape, spacing_mm: Spacing, device: torch.device
) -> torch.Tensor:
    """For each voxel of a result of `size` its place in the source, (B, X, Y, Z, 3), as `grid_sample` wants it.

    Both are centred on one another. The last axis holds places along z, y, x, from -1 to 1 over the source's extent.
    """
    spacing, source = np.array(spacing_mm), np.array(source_shape)
    steps = 2 / (source * spacing)
    offsets_mm = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True)]
    # One sample's grid is a sum of three outer terms; the middle of an even source lies between voxels, as the
    # result's may not: `centre` is where the result's centre comes to lie.
    first = (source - np.array(size)) // 2
    centre = (first + (np.array(size) - 1) / 2 + 0.5) * 2 / source - 1
    grid = torch.empty((len(drawn), *size, 3), device=device)
    for b, spatial in enumerate(drawn):
        matrix = np.eye(3) if spatial.matrix is None else spatial.matrix
        for place, axis in enumerate((2, 1, 0)):
            along = [
                _send((matrix[axis, j] * steps[axis] * offsets_mm[j] + (centre[axis] if j == 0 else 0.0)), device)
                for j in range(3)
            ]
            plane = along[1][:, None] + along[2]
            torch.add(along[0][:, None, None], plane, out=grid[b, ..., place])
    for b, spatial in enumerate(drawn):
        if spatial.displacement is not None:
            displacement = _send(spatial.displacement * steps[:, None, None, None], device)
            grid[b] += _interpolated(displacement, size, device).flip(0).permute(1, 2, 3, 0)
    return grid


def flip(
    image_CXYZ: torch.Tensor,
    label_XYZ: torch.Tensor,
    axes: Sequence[int],
    swaps: Sequence[tuple[int, int]] = (),
    overlapping: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both reversed along spatial `axes`; the structures of each pair change places where axis 0 is among them."""
    label = label_XYZ.flip(list(axes))
    if 0 in axes:
        for one, other in swaps:
            label = _swapped_bits(label, one - 1, other - 1) if overlapping else _swapped(label, one, other)
    return image_CXYZ.flip([axis + 1 for axis in axes]), label


def _swapped(label: torch.Tensor, one: int, other: int) -> torch.Tensor:
    return label.masked_fill(label == one, other).masked_fill_(label == other, one)


def _swapped_bits(label: torch.Tensor, one: int, other: int) -> torch.Tensor:
    differ = ((label >> one) ^ (label >> other)) & 1
    return label ^ (differ << one) ^ (differ << other)


def _rotatable(spacing_mm: Spacing) -> NDArray[np.bool_]:
    """About which axes images may be turned: all, or only that of thick slices."""
    spacing = np.array(spacing_mm)
    thickest = int(spacing.argmax())
    thick = spacing.max() > _THICK * np.delete(spacing, thickest).max()
    return np.array([not thick or axis == thickest for axis in range(3)])


def _interpolated(points: torch.Tensor, size: Shape, device: torch.device) -> torch.Tensor:
    """(3, a, b, c) control values as (3, X, Y, Z), a cubic spline along each axis."""
    x, y, z = (_send(axis_matrix(n, m, 3), device) for n, m in zip(points.shape[1:], size, strict=True))
    # Axis by axis from the last, so that most of the work is one product of small matrices.
    along_yz = y @ (points @ z.T)
    return (x @ along_yz.flatten(2)).unflatten(2, along_yz.shape[2:])


def _largest_share(label_BXYZ: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Each class interpolated linearly; the one with the largest share wins."""
    best = torch.zeros(grid.shape[:-1], dtype=label_BXYZ.dtype, device=label_BXYZ.device)
    share = torch.full(grid.shape[:-1], -1.0, device=label_BXYZ.device)
    for value in label_BXYZ.unique():
        mask = (label_BXYZ == value)[:, None].float()
        found = F.grid_sample(mask, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]
        best = torch.where(found > share, value, best)
        share = torch.maximum(share, found)
    return best


def _send(array: NDArray, device: torch.device) -> torch.Tensor:
    """An array on the device; to a GPU through pinned memory, so that nobody waits for what it is working on."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
