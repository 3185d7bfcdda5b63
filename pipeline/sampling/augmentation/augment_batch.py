"""Augmentation: one operation on a whole batch, on the device that trains.

What happens to a sample is drawn on the CPU from (seed, index of the patch), so that it does not depend on how patches
are put into batches; the voxels never leave the device. Only the samples that were drawn for an operation pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.io.geometry import Shape, Spacing
from pipeline.sampling.augmentation import intensity_transforms as intensity
from pipeline.sampling.augmentation.random_parameters import (
    AugmentParams,
    IntensityParams,
)
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
        image[b] = one if change is None else _with_values(one, change.intensity)
        label[b] = its_label
    return image, label


def _with_values(image_CXYZ: torch.Tensor, drawn: IntensityParams) -> torch.Tensor:
    """The intensity operations in nnU-Net's order."""
    if drawn.noise is not None:
        image_CXYZ = intensity.add_noise(image_CXYZ, *drawn.noise)
    if drawn.blur is not None:
        image_CXYZ = intensity.blur(image_CXYZ, drawn.blur)
    if drawn.brightness is not None:
        image_CXYZ = intensity.scale_brightness(image_CXYZ, drawn.brightness)
    if drawn.contrast is not None:
        image_CXYZ = intensity.adjust_contrast(image_CXYZ, drawn.contrast)
    if drawn.low_resolution is not None:
        image_CXYZ = intensity.simulate_low_resolution(image_CXYZ, drawn.low_resolution)
    if drawn.gamma is not None:
        image_CXYZ = intensity.adjust_gamma(image_CXYZ, drawn.gamma, drawn.inverted)
    return image_CXYZ


def _patch(tensor: torch.Tensor, first: Shape, size: Shape) -> torch.Tensor:
    """Of the last three axes `size` from `first` on."""
    for axis, begin, length in zip((-3, -2, -1), first, size, strict=True):
        tensor = tensor.narrow(axis, begin, length)
    return tensor
