"""What augmentation does to positions: one affine map and one elastic displacement per sample.

They give for each voxel of the result a place in the input, all in millimetres around the patch's centre, so that
voxels of any shape are turned without shear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.io.geometry import Shape, Spacing
from pipeline.sampling.augmentation.grid_sample import SamplingGrid
from pipeline.sampling.augmentation.random_parameters import SpatialParams
from pipeline.sampling.augmentation.separable_resize import resize_separable
from pipeline.sampling.cut_patches import NO_MARGIN, PatchWithMargin
from pipeline.sampling.tensor_to_device import to_device


def margin(drawn: SpatialParams, patch_size: Shape, spacing_mm: Spacing) -> Shape:
    """Voxels around a patch that a result of its size shows, at the most a quarter of the patch.

    Beyond it the edge is repeated: the furthest corners are rare, and reading them costs more than they teach.
    """
    if not drawn.moves:
        return NO_MARGIN
    spacing = np.array(spacing_mm)
    half_mm = (np.array(patch_size) - 1) / 2 * spacing
    reach_mm = half_mm if drawn.matrix is None else np.abs(drawn.matrix) @ half_mm
    if drawn.displacement is not None:
        reach_mm = reach_mm + np.abs(drawn.displacement).max(axis=(1, 2, 3))
    wanted = np.clip((reach_mm - half_mm) / spacing, 0, np.array(patch_size) / 4)
    x, y, z = (math.ceil(extra) for extra in wanted)
    return x, y, z


def resample(
    whole: PatchWithMargin, drawn: SpatialParams, size: Shape, spacing_mm: Spacing, linear_label: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (linear) and label (nearest, or linear per class) of `size` at the same places; edges are repeated."""
    places_3XYZ = sampling_coordinates(drawn, size, whole.first, spacing_mm, whole.image.device)
    places = SamplingGrid(places_3XYZ, tuple(whole.label.shape))
    moved = _largest_share(whole.label, places) if linear_label else places.nearest(whole.label)
    return places.linear(whole.image), moved


def sampling_coordinates(
    drawn: SpatialParams, size: Shape, first: Shape, spacing_mm: Spacing, device: torch.device
) -> torch.Tensor:
    """For each voxel of a result of `size` its place in the source in voxels, (3, X, Y, Z); flips are left out.

    first: where the patch begins in the source; it is turned and bent around its centre.
    """
    spacing = np.array(spacing_mm)
    matrix = (np.eye(3) if drawn.matrix is None else drawn.matrix) / spacing[:, None]
    x, y, z = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True))
    centre = np.array(first) + (np.array(size) - 1) / 2
    # A sum of three terms, one along each axis of the result. As a table of two axes: with three, torch would add in
    # pieces as short as the last one.
    along_x = centre[:, None] + matrix[:, :1] * x
    along_yz = (matrix[:, 1:2] * y)[:, :, None] + (matrix[:, 2:] * z)[:, None]
    on_x, on_yz = (to_device(table.astype(np.float32), device) for table in (along_x, along_yz))
    places = (on_x[:, :, None] + on_yz.flatten(1)[:, None]).view(3, *size)
    if drawn.displacement is not None:
        bent = (drawn.displacement / spacing[:, None, None, None]).astype(np.float32)
        places += resize_separable(to_device(bent, device), size, 3)
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


def _largest_share(label_XYZ: torch.Tensor, places: SamplingGrid) -> torch.Tensor:
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
