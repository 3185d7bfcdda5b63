"""What augmentation does to positions: one affine map and one elastic displacement per sample.

They give for each voxel of the result a place in the input, all in millimetres around the patch's centre, so that
voxels of any shape are turned without shear.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.augment_config import AugmentConfig
from pipeline.data.geometry import Shape, Spacing
from pipeline.data.patches import Surroundings
from pipeline.data.places import Places
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


def margin(drawn: Spatial, patch_size: Shape, spacing_mm: Spacing) -> Shape:
    """Voxels around a patch that a result of its size shows, at the most a quarter of the patch.

    Beyond it the edge is repeated: the furthest corners are rare, and reading them costs more than they teach.
    """
    spacing = np.array(spacing_mm)
    half_mm = (np.array(patch_size) - 1) / 2 * spacing
    reach_mm = half_mm if drawn.matrix is None else np.abs(drawn.matrix) @ half_mm
    if drawn.displacement is not None:
        reach_mm = reach_mm + np.abs(drawn.displacement).max(axis=(1, 2, 3))
    wanted = np.clip((reach_mm - half_mm) / spacing, 0, np.array(patch_size) / 4)
    x, y, z = (math.ceil(extra) for extra in wanted)
    return x, y, z


def resample(
    whole: Surroundings, drawn: Spatial, size: Shape, spacing_mm: Spacing, linear_label: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (linear) and label (nearest, or linear per class) of `size` at the same places; edges are repeated."""
    places_3XYZ = source_places(drawn, size, whole.first, spacing_mm, whole.image.device)
    places = Places(places_3XYZ, tuple(whole.label.shape))
    moved = _largest_share(whole.label, places) if linear_label else places.nearest(whole.label)
    return places.linear(whole.image), moved


def source_places(drawn: Spatial, size: Shape, first: Shape, spacing_mm: Spacing, device: torch.device) -> torch.Tensor:
    """For each voxel of a result of `size` its place in the source in voxels, (3, X, Y, Z).

    first: where the patch begins in the source; it is turned and bent around its centre.
    """
    spacing = np.array(spacing_mm)
    matrix = np.eye(3) if drawn.matrix is None else drawn.matrix
    offsets_mm = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True)]
    centre = np.array(first) + (np.array(size) - 1) / 2
    places = torch.empty((3, *size), device=device)
    for axis in range(3):
        # A sum of three terms, one along each axis of the result.
        along = [matrix[axis, j] / spacing[axis] * offsets_mm[j] for j in range(3)]
        x, y, z = (_send(term, device) for term in (along[0] + centre[axis], *along[1:]))
        # As a table of two axes: with three, torch would add in pieces as short as the last one.
        torch.add(x[:, None], (y[:, None] + z).view(1, -1), out=places[axis].view(size[0], -1))
    if drawn.displacement is not None:
        places += _interpolated(_send(drawn.displacement / spacing[:, None, None, None], device), size, device)
    return places


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


def _largest_share(label_XYZ: torch.Tensor, places: Places) -> torch.Tensor:
    """Each class interpolated linearly; the one with the largest share wins."""
    best, share = None, None
    for value in label_XYZ.unique():
        found = places.linear((label_XYZ == value)[None].float())[0]
        if best is None or share is None:
            best, share = torch.full_like(found, value.item(), dtype=label_XYZ.dtype), found
            continue
        best = torch.where(found > share, value, best)
        share = torch.maximum(share, found)
    if best is None:
        raise AssertionError("a label without voxels")
    return best


def _send(array: NDArray, device: torch.device) -> torch.Tensor:
    """An array on the device; to a GPU through pinned memory, so that nobody waits for what it is working on."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
