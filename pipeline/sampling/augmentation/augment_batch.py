"""Augmentation: one operation on a whole batch, on the device that trains.

What happens to a sample is drawn on the CPU from (seed, index of the patch), so that it does not depend on how patches
are put into batches; the voxels never leave the device. Only the samples that were drawn for an operation pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.io.geometry import Shape, Spacing
from pipeline.sampling.augmentation.intensity_transforms import apply_intensity
from pipeline.sampling.augmentation.random_parameters import AugmentParams
from pipeline.sampling.augmentation.spatial_transforms import flip, resample
from pipeline.sampling.cut_patches import PatchWithMargin


def augment_batch(
    samples: Sequence[PatchWithMargin],
    changes: Sequence[AugmentParams | None],
    size: Shape,
    spacing_mm: Spacing,
    swaps: Sequence[tuple[int, int]] = (),
    overlapping: bool = False,
    linear_label: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples, each changed in its way, as one batch (B, C, *size) and (B, *size).

    Where a sample is larger than `size` (`margin`), turned patches show what lies around them instead of repeated
    edges. swaps: pairs of structure indices that change places when axis 0 is flipped. overlapping: labels are bit
    masks, taken from the nearest voxel always. linear_label: others are interpolated class by class.
    """
    image = samples[0].image.new_empty((len(samples), len(samples[0].image), *size))
    label = samples[0].label.new_empty((len(samples), *size))
    for b, (whole, change) in enumerate(zip(samples, changes, strict=True)):
        if change is not None and change.spatial.moves:
            one, its_label = resample(whole, change.spatial, size, spacing_mm, linear_label and not overlapping)
        else:
            one, its_label = (_patch(tensor, whole.first, size) for tensor in (whole.image, whole.label))
        if change is not None and any(change.spatial.flips):
            axes = [axis for axis in range(3) if change.spatial.flips[axis]]
            one, its_label = flip(one, its_label, axes, swaps, overlapping)
        image[b] = one if change is None else apply_intensity(one, change.intensity)
        label[b] = its_label
    return image, label


def _patch(tensor: torch.Tensor, first: Shape, size: Shape) -> torch.Tensor:
    """Of the last three axes `size` from `first` on."""
    for axis, begin, length in zip((-3, -2, -1), first, size, strict=True):
        tensor = tensor.narrow(axis, begin, length)
    return tensor
