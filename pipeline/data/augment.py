"""Augmentation: one operation on a whole batch, on the device that trains.

What happens to a sample is drawn on the CPU from (seed, index of the patch), so that it does not depend on how patches
are put into batches; the voxels never leave the device. Only the samples that were drawn for an operation pay for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data import augment_intensity as intensity
from pipeline.data.augment_config import AugmentConfig
from pipeline.data.augment_spatial import Spatial, draw_spatial, flip, resample
from pipeline.data.geometry import Shape, Spacing
from pipeline.data.patches import Surroundings
from pipeline.data.random import Purpose, generator


@dataclass(frozen=True)
class Intensity:
    """What happens to the values of one sample; None: nothing. Tuples have one entry per channel."""

    noise: tuple[float, int] | None = None
    """Standard deviation, and the seed of the noise."""
    blur: float | None = None
    brightness: tuple[float, ...] | None = None
    contrast: tuple[float, ...] | None = None
    low_resolution: float | None = None
    gamma: tuple[float, ...] | None = None
    inverted: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one sample."""

    spatial: Spatial
    intensity: Intensity


def apply_changes(
    samples: Sequence[Surroundings],
    changes: Sequence[Change | None],
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


def draw_change(
    config: AugmentConfig,
    seed: int,
    index: int,
    channels: int,
    mirror_axes: Collection[int],
    spacing_mm: Spacing,
    patch_size: Shape,
    swaps: Sequence[tuple[int, int]] = (),
) -> Change | None:
    """What happens to the sample number `index`, counted over all steps; None: nothing.

    mirror_axes: axes that may be flipped; with `swaps`, axis 0 may be even if it is none of them. Every number is drawn
    whether it is used or not, so that options do not interfere.
    """
    if not config.enabled:
        return None
    rng = generator(seed, Purpose.AUGMENT, index)
    spatial = draw_spatial(rng, config, {*mirror_axes, *([0] if swaps else [])}, spacing_mm, patch_size)
    noise = rng.random() < config.noise.prob, rng.uniform(*config.noise.std), int(rng.integers(2**62))
    blur = rng.random() < config.blur.prob, rng.uniform(*config.blur.sigma)
    brightness = rng.random() < config.brightness.prob, rng.uniform(*config.brightness.factor, channels)
    contrast = rng.random() < config.contrast.prob, rng.uniform(*config.contrast.factor, channels)
    low_resolution = rng.random() < config.low_resolution.prob, rng.uniform(*config.low_resolution.zoom)
    gamma = rng.random() < config.gamma.prob, rng.uniform(*config.gamma.gamma, channels)
    inverted = bool(rng.random() < config.gamma.invert_prob)
    values = Intensity(
        noise=(noise[1], noise[2]) if noise[0] else None,
        blur=blur[1] if blur[0] else None,
        brightness=_floats(brightness[1]) if brightness[0] else None,
        contrast=_floats(contrast[1]) if contrast[0] else None,
        low_resolution=low_resolution[1] if low_resolution[0] else None,
        gamma=_floats(gamma[1]) if gamma[0] else None,
        inverted=inverted,
    )
    return Change(spatial, values)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _with_values(image_CXYZ: torch.Tensor, drawn: Intensity) -> torch.Tensor:
    """The intensity operations in nnU-Net's order."""
    if drawn.noise is not None:
        image_CXYZ = intensity.add_noise(image_CXYZ, *drawn.noise)
    if drawn.blur is not None:
        image_CXYZ = intensity.blur(image_CXYZ, drawn.blur)
    if drawn.brightness is not None:
        image_CXYZ = intensity.multiply(image_CXYZ, drawn.brightness)
    if drawn.contrast is not None:
        image_CXYZ = intensity.stretch(image_CXYZ, drawn.contrast)
    if drawn.low_resolution is not None:
        image_CXYZ = intensity.lower_resolution(image_CXYZ, drawn.low_resolution)
    if drawn.gamma is not None:
        image_CXYZ = intensity.adjust_gamma(image_CXYZ, drawn.gamma, drawn.inverted)
    return image_CXYZ


def _patch(tensor: torch.Tensor, first: Shape, size: Shape) -> torch.Tensor:
    """Of the last three axes `size` from `first` on."""
    for axis, begin, length in zip((-3, -2, -1), first, size, strict=True):
        tensor = tensor.narrow(axis, begin, length)
    return tensor
