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


def augment(
    image_BCXYZ: torch.Tensor,
    label_BXYZ: torch.Tensor,
    config: AugmentConfig,
    seed: int,
    step: int,
    mirror_axes: Sequence[int],
    spacing_mm: Spacing,
    patch_size: Shape | None = None,
    swaps: Sequence[tuple[int, int]] = (),
    overlapping: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and label of `patch_size`, varied as `config` says; a pure function of its arguments.

    patch_size: None is the input's size. Where the input is larger (`spatial_margin`), rotated patches show what lies
    around them instead of repeated edges. mirror_axes: axes that may be flipped. swaps: pairs of structure indices
    that change places when axis 0 is flipped; it is flipped then even if it is no mirror axis. overlapping: labels are
    bit masks.
    """
    size: Shape = tuple(image_BCXYZ.shape[2:]) if patch_size is None else patch_size  # type: ignore[assignment]
    image, label = _middle(image_BCXYZ, size).clone(), _middle(label_BXYZ, size).clone()
    if not config.enabled:
        return image, label
    batch, channels = image.shape[:2]
    axes = {*mirror_axes, *([0] if swaps else [])}
    drawn = [_draw(config, seed, step * batch + b, channels, axes, spacing_mm, size) for b in range(batch)]
    moved = [b for b, (spatial, _) in enumerate(drawn) if spatial.moves]
    if moved:
        resampled = resample(
            torch.stack([image_BCXYZ[b] for b in moved]),
            torch.stack([label_BXYZ[b] for b in moved]),
            [drawn[b][0] for b in moved],
            size,
            spacing_mm,
            linear_label=config.label_interpolation == "linear" and not overlapping,
        )
        for b, new_image, new_label in zip(moved, *resampled, strict=True):
            image[b], label[b] = new_image, new_label
    for b, (spatial, values) in enumerate(drawn):
        if any(spatial.flips):
            axes_here = [axis for axis in range(3) if spatial.flips[axis]]
            image[b], label[b] = flip(image[b], label[b], axes_here, swaps, overlapping)
        image[b] = _with_values(image[b], values)
    return image, label


def _draw(
    config: AugmentConfig,
    seed: int,
    index: int,
    channels: int,
    mirror_axes: Collection[int],
    spacing_mm: Spacing,
    patch_size: Shape,
) -> tuple[Spatial, Intensity]:
    """What happens to one sample. Every number is drawn whether it is used or not, so that options do not interfere."""
    rng = generator(seed, Purpose.AUGMENT, index)
    spatial = draw_spatial(rng, config, mirror_axes, spacing_mm, patch_size)
    noise = rng.random() < config.noise.prob, rng.uniform(*config.noise.std), int(rng.integers(2**62))
    blur = rng.random() < config.blur.prob, rng.uniform(*config.blur.sigma)
    brightness = rng.random() < config.brightness.prob, rng.uniform(*config.brightness.factor, channels)
    contrast = rng.random() < config.contrast.prob, rng.uniform(*config.contrast.factor, channels)
    low_resolution = rng.random() < config.low_resolution.prob, rng.uniform(*config.low_resolution.zoom)
    gamma = rng.random() < config.gamma.prob, rng.uniform(*config.gamma.gamma, channels)
    inverted = bool(rng.random() < config.gamma.invert_prob)
    return spatial, Intensity(
        noise=(noise[1], noise[2]) if noise[0] else None,
        blur=blur[1] if blur[0] else None,
        brightness=_floats(brightness[1]) if brightness[0] else None,
        contrast=_floats(contrast[1]) if contrast[0] else None,
        low_resolution=low_resolution[1] if low_resolution[0] else None,
        gamma=_floats(gamma[1]) if gamma[0] else None,
        inverted=inverted,
    )


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


def _middle(tensor: torch.Tensor, size: Shape) -> torch.Tensor:
    """The central part of the last three axes."""
    for axis, length in zip((-3, -2, -1), size, strict=True):
        tensor = tensor.narrow(axis, (tensor.shape[axis] - length) // 2, length)
    return tensor
