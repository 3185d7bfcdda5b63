"""Random parameters of augmentation: drawn for each sample from the seed and the index of its patch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.rng import RandomPurpose, derive_seed, generator, uniform_between
from pipeline.io.geometry import Shape, Spacing
from pipeline.sampling.augmentation.augmentation_config import AugmentConfig
from pipeline.sampling.augmentation.rotation_matrix import rotation_matrix

# Slices this much thicker than the pixels are not mixed with one another, as in nnU-Net.
_THICK = 3.0
SPATIAL_NUMBERS = 13
"""How many random numbers `draw_spatial_params` takes, whatever the settings."""


@dataclass(frozen=True)
class SpatialParams:
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


def draw_spatial_params(
    numbers: Sequence[float],
    config: AugmentConfig,
    mirror_axes: Collection[int],
    spacing_mm: Spacing,
    patch_size: Shape,
) -> SpatialParams:
    """What happens to one sample, from the first `SPATIAL_NUMBERS` of `numbers`, which are evenly spread over 0..1."""
    affine, elastic = config.affine, config.elastic
    turned, a, b, c, *scales, bent, strength, points_seed, flip_x, flip_y, flip_z = numbers[:SPATIAL_NUMBERS]
    displacement = None
    if bent < elastic.prob:
        points = [
            max(math.ceil(n * s / elastic.spacing_mm) + 1, 2) for n, s in zip(patch_size, spacing_mm, strict=True)
        ]
        source = np.random.default_rng(derive_seed(points_seed))
        displacement = source.normal(0.0, uniform_between(strength, elastic.magnitude_mm), (3, *points)).astype(
            np.float32
        )
    matrix = None
    if turned < affine.prob:
        most, low, high = math.radians(affine.rotation_degrees), math.log(affine.scale[0]), math.log(affine.scale[1])
        angles = [uniform_between(number, (-most, most)) for number in (a, b, c)]
        scale = [math.exp(uniform_between(number, (low, high))) for number in scales]
        scale = scale if affine.scale_per_axis else scale[:1] * 3
        matrix = rotation_matrix(np.where(_rotatable(spacing_mm), angles, 0.0)) / scale
    x, y, z = (
        number < config.flip_prob and axis in mirror_axes for axis, number in enumerate((flip_x, flip_y, flip_z))
    )
    return SpatialParams(matrix, displacement, (x, y, z))


def _rotatable(spacing_mm: Spacing) -> NDArray[np.bool_]:
    """About which axes images may be turned: all, or only that of thick slices."""
    spacing = np.array(spacing_mm)
    thickest = int(spacing.argmax())
    thick = spacing.max() > _THICK * np.delete(spacing, thickest).max()
    return np.array([not thick or axis == thickest for axis in range(3)])


@dataclass(frozen=True)
class IntensityParams:
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
class AugmentParams:
    """What happens to one sample."""

    spatial: SpatialParams
    intensity: IntensityParams


def draw_params(
    config: AugmentConfig,
    seed: int,
    index: int,
    channels: int,
    mirror_axes: Collection[int],
    spacing_mm: Spacing,
    patch_size: Shape,
    swaps: Sequence[tuple[int, int]] = (),
) -> AugmentParams | None:
    """What happens to the sample number `index`, counted over all steps; None: nothing.

    mirror_axes: axes that may be flipped; with `swaps`, axis 0 may be even if it is none of them. Every number is drawn
    whether it is used or not, so that options do not interfere.
    """
    if not config.enabled:
        return None
    # All at once: thirty calls of a generator take as long as turning a patch's labels.
    numbers = generator(seed, RandomPurpose.AUGMENT, index).random(SPATIAL_NUMBERS + 11 + 3 * channels).tolist()
    spatial = draw_spatial_params(numbers, config, {*mirror_axes, *([0] if swaps else [])}, spacing_mm, patch_size)
    noise, noise_std, noise_seed, blur, sigma, low_resolution, zoom, *rest = numbers[SPATIAL_NUMBERS:]
    brightness, contrast, gamma, inverted, *each = rest
    factors, stretches, gammas = (each[first : first + channels] for first in (0, channels, 2 * channels))
    values = IntensityParams(
        noise=(uniform_between(noise_std, config.noise.std), derive_seed(noise_seed))
        if noise < config.noise.prob
        else None,
        blur=uniform_between(sigma, config.blur.sigma) if blur < config.blur.prob else None,
        brightness=_several(factors, config.brightness.factor) if brightness < config.brightness.prob else None,
        contrast=_several(stretches, config.contrast.factor) if contrast < config.contrast.prob else None,
        low_resolution=uniform_between(zoom, config.low_resolution.zoom)
        if low_resolution < config.low_resolution.prob
        else None,
        gamma=_several(gammas, config.gamma.gamma) if gamma < config.gamma.prob else None,
        inverted=inverted < config.gamma.invert_prob,
    )
    return AugmentParams(spatial, values)


def _several(numbers: Sequence[float], limits: tuple[float, float]) -> tuple[float, ...]:
    return tuple(uniform_between(number, limits) for number in numbers)
