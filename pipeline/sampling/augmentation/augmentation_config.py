"""How training patches are varied, as settings. Without torch: configurations are read before anything heavy.

Probabilities are per sample. Ranges are drawn from uniformly. The defaults have nnU-Net's ranges of rotation and scale,
but are applied more often, scale each axis by itself, and add an elastic displacement.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.base.strict_model import StrictModel

Probability = Annotated[float, Field(ge=0, le=1)]


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the range {list(limits)} must rise, from the smallest to the largest value")
    return limits


def _positive(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] <= 0:
        raise ValueError(f"the range {list(limits)} must begin above 0")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_rising), AfterValidator(_positive)]


class AffineConfig(StrictModel):
    """Rotation and scaling in millimetres, so that thick slices are not sheared."""

    prob: Probability = 0.5
    rotation_degrees: float = Field(default=30.0, ge=0, le=180)
    """Largest angle about each axis; across slices that are much thicker than the pixels, images are turned only
    within the slice."""
    scale: PositiveRange = (0.7, 1.4)
    """Magnification; drawn so that growing and shrinking by one factor are equally likely."""
    scale_per_axis: bool = True
    """Each axis its own magnification."""


class ElasticConfig(StrictModel):
    """Smooth random displacement, on top of the affine map and through the same sampling grid."""

    prob: Probability = 0.2
    spacing_mm: float = Field(default=16.0, gt=0)
    """Distance of the control points, between which displacement is interpolated."""
    magnitude_mm: Range = (0.0, 3.0)
    """Standard deviation of a control point's displacement."""


class NoiseConfig(StrictModel):
    """Gaussian noise. Images have standard deviation 1."""

    prob: Probability = 0.2
    std: Range = (0.0, 0.3)


class BlurConfig(StrictModel):
    """Gaussian blur."""

    prob: Probability = 0.1
    sigma: PositiveRange = (0.5, 1.0)
    """In voxels."""


class BrightnessConfig(StrictModel):
    """Multiplies all values of a channel."""

    prob: Probability = 0.3
    factor: PositiveRange = (0.7, 1.3)


class ContrastConfig(StrictModel):
    """Stretches a channel's values around their mean, within their old range."""

    prob: Probability = 0.3
    factor: PositiveRange = (0.7, 1.4)


class GammaConfig(StrictModel):
    """x ^ gamma on values scaled to 0..1; mean and standard deviation are kept."""

    prob: Probability = 0.3
    gamma: PositiveRange = (0.7, 1.5)
    invert_prob: Probability = 0.25
    """How often the image is inverted before and after, among those that are changed."""


class LowResolutionConfig(StrictModel):
    """Samples down (nearest) and up again (linear), as if scanned with larger voxels."""

    prob: Probability = 0.1
    zoom: PositiveRange = (0.5, 1.0)


class AugmentConfig(StrictModel):
    """All augmentations; each is off with prob: 0."""

    enabled: bool = True
    """false: patches are used as they are."""
    affine: AffineConfig = AffineConfig()
    elastic: ElasticConfig = ElasticConfig()
    flip_prob: Probability = 0.5
    """Per axis that the plan lets be mirrored (plan.mirror_axes)."""
    label_interpolation: Literal["nearest", "linear"] = "nearest"
    """nearest, or linear per class (slower). Structures that overlap are taken from the nearest voxel always."""
    noise: NoiseConfig = NoiseConfig()
    blur: BlurConfig = BlurConfig()
    brightness: BrightnessConfig = BrightnessConfig()
    contrast: ContrastConfig = ContrastConfig()
    low_resolution: LowResolutionConfig = LowResolutionConfig()
    gamma: GammaConfig = GammaConfig()
