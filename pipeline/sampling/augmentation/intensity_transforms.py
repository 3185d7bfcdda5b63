"""Intensity transforms: noise, blur, brightness, contrast, low resolution and gamma."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.sampling.augmentation.random_parameters import IntensityParams
from pipeline.sampling.augmentation.separable_resize import resize_separable

_TRUNCATE = 3.0
_TO_ONE = 2**-31 * (1 - 2**-24)
"""Brings 32-bit integers between -1 and 1, neither of which they reach as float32."""


def apply_intensity(image_CXYZ: torch.Tensor, drawn: IntensityParams) -> torch.Tensor:
    """Those of the transforms that were drawn for an image, in nnU-Net's order."""
    if drawn.noise is not None:
        image_CXYZ = add_noise(image_CXYZ, *drawn.noise)
    if drawn.blur is not None:
        image_CXYZ = blur(image_CXYZ, drawn.blur)
    if drawn.brightness is not None:
        image_CXYZ = scale_brightness(image_CXYZ, drawn.brightness)
    if drawn.contrast is not None:
        image_CXYZ = adjust_contrast(image_CXYZ, drawn.contrast)
    if drawn.low_resolution is not None:
        image_CXYZ = simulate_low_resolution(image_CXYZ, drawn.low_resolution)
    if drawn.gamma is not None:
        image_CXYZ = adjust_gamma(image_CXYZ, drawn.gamma, drawn.inverted)
    return image_CXYZ


def add_noise(image_CXYZ: torch.Tensor, std: float, seed: int) -> torch.Tensor:
    """Gaussian noise from its own seed; what a seed gives depends on the kind of device."""
    return image_CXYZ.add(_normal(image_CXYZ.shape, seed, image_CXYZ.device), alpha=std)


def _normal(shape: torch.Size, seed: int, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    # On a CPU torch draws one number after another. Random bits, 32 a voxel, and the inverse of the normal distribution
    # take half of that time.
    count = shape.numel()
    source = np.random.Generator(np.random.SFC64(seed))
    bits = source.integers(0, 2**64, math.ceil(count / 2), np.uint64).view(np.int32)[:count]
    return torch.from_numpy(bits).float().mul_(_TO_ONE).erfinv_().mul_(math.sqrt(2)).view(shape)


def blur(image_CXYZ: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, `sigma` in voxels: axis by axis, edges repeated, as `scipy.ndimage.gaussian_filter`."""
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    for axis in (1, 2, 3):
        n = image_CXYZ.shape[axis]
        padding = [0] * 6
        padding[2 * (3 - axis)] = padding[2 * (3 - axis) + 1] = radius
        padded = F.pad(image_CXYZ[None], padding, mode="replicate")[0]
        # A sum of shifted views is cheaper than a convolution with so few taps.
        blurred = padded.narrow(axis, 0, n) * (weights[0] / total)
        for shift, weight in enumerate(weights[1:], start=1):
            blurred.add_(padded.narrow(axis, shift, n), alpha=weight / total)
        image_CXYZ = blurred
    return image_CXYZ


def scale_brightness(image_CXYZ: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Each channel times its factor."""
    return _by_channel(torch.mul, image_CXYZ, factors)


def adjust_contrast(image_CXYZ: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Each channel's distance to its mean times its factor, clamped to the channel's old range."""
    return _by_channel(_stretched, image_CXYZ, factors)


def _stretched(channel: torch.Tensor, factor: float) -> torch.Tensor:
    mean, (low, high) = channel.mean(), torch.aminmax(channel)
    stretched = torch.lerp(mean, channel, factor)
    # As clamp_, which takes five times as long where its limits are tensors.
    return torch.minimum(torch.maximum(stretched, low, out=stretched), high, out=stretched)


def simulate_low_resolution(image_CXYZ: torch.Tensor, zoom: float) -> torch.Tensor:
    """Sampled down by `zoom` (nearest) and back up (linear), as MONAI's RandSimulateLowResolution."""
    size = [max(round(n * zoom), 1) for n in image_CXYZ.shape[1:]]
    small = F.interpolate(image_CXYZ[None], size, mode="nearest")[0]
    x, y, z = image_CXYZ.shape[1:]
    return resize_separable(small, (x, y, z), 1)


def adjust_gamma(image_CXYZ: torch.Tensor, gammas: Sequence[float], inverted: bool) -> torch.Tensor:
    """x ^ gamma of each channel scaled to 0..1, of the negative where `inverted`; mean and deviation are restored."""
    return _by_channel(lambda channel, gamma: _with_gamma(channel, gamma, inverted), image_CXYZ, gammas)


def _with_gamma(channel: torch.Tensor, gamma: float, inverted: bool) -> torch.Tensor:
    channel = -channel if inverted else channel
    mean, std = _mean_std(channel)
    low, high = torch.aminmax(channel)
    # x ^ gamma as torch computes it takes five times as long; the logarithm of 0 is -inf, whose exponential is 0.
    changed = channel.sub(low).div_(high - low + 1e-7).log_().mul_(gamma).exp_()
    new_mean, new_std = _mean_std(changed)
    steepness = std / (new_std + 1e-8)
    changed.mul_(steepness).add_(mean - new_mean * steepness)
    return changed.neg_() if inverted else changed


def _mean_std(channel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `torch.std_mean`, which is ten times as slow on a CPU."""
    mean = channel.mean()
    return mean, torch.linalg.vector_norm(channel - mean) / math.sqrt(max(channel.numel() - 1, 1))


def _by_channel(
    change: Callable[[torch.Tensor, float], torch.Tensor], image_CXYZ: torch.Tensor, amounts: Sequence[float]
) -> torch.Tensor:
    changed = [change(channel, amount) for channel, amount in zip(image_CXYZ, amounts, strict=True)]
    return torch.stack(changed) if len(changed) > 1 else changed[0][None]
