"""What may be pinned of a plan. Without torch: configurations are read before anything heavy is imported."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.base.strict_model import StrictModel
from pipeline.models.losses.loss_config import DiceCEConfig, LossConfig

Scheme = Literal["ct", "zscore", "none"]
_Length = Annotated[float, Field(gt=0)]
_Size = Annotated[int, Field(ge=4)]


class PlanConfig(StrictModel):
    """Pins. Whatever stays null is decided from the data, the machine and the time, and frozen with its reason."""

    spacing_mm: tuple[_Length, _Length, _Length] | None = None
    """Voxel size of the planned grid along R, A and S."""
    crop: Literal["none", "nonzero"] | None = None
    """nonzero: crop to the box that is not background before resampling."""
    normalisation: dict[str, Scheme] = Field(default={})
    """Channel name to ct (clip to percentiles of the data set), zscore (image by image) or none."""
    image_interpolation: Literal["linear", "cubic"] | None = None
    label_interpolation: Literal["linear", "nearest"] | None = None
    """linear: structure by structure, the largest share wins."""
    patch_size: tuple[_Size, _Size, _Size] | Literal["whole"] | None = None
    """Voxels of a patch on the planned grid; must suit the network's divisor. whole: as large as the largest image, for
    images that are small."""
    batch_size: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Arithmetic of the network in training; weights stay fp32."""
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] | None = None
    """Axes that may be flipped: 0 left–right, 1 front–back, 2 head–feet. Never 0 where structures have sides."""
    left_right_pairs: tuple[tuple[str, str], ...] = ()
    """Structures that change places when the image is flipped left–right, which then is allowed: all that have sides,
    or none."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of a CPU training; null: all cores."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Most memory that training may take; null: 80 % of what is free."""

    @field_validator("mirror_axes")
    @classmethod
    def _each_once(cls, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if axes is not None and len(set(axes)) != len(axes):
            raise ValueError(f"names an axis twice: {list(axes)}")
        return axes

    @field_validator("left_right_pairs")
    @classmethod
    def _each_in_one_pair(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        times = Counter(name for pair in pairs for name in pair)
        if twice := [name for name, count in times.items() if count > 1]:
            raise ValueError(f"names {', '.join(twice)} more than once; a structure changes places with one other")
        return pairs

    @field_validator("left_right_pairs")
    @classmethod
    def _not_mirrored_too(cls, pairs: tuple[tuple[str, str], ...], info: ValidationInfo) -> tuple[tuple[str, str], ...]:
        if pairs and 0 in (info.data.get("mirror_axes") or ()):
            raise ValueError(
                "makes training flip axis 0 and swap the names, so 0 may not stand in plan.mirror_axes: prediction "
                "would mix the sides; leave it out there"
            )
        return pairs


class StepCostConfig(StrictModel):
    """What else of `train` decides how many steps fit into a budget.

    Of the optimiser its name alone, since no rate or momentum takes longer than another.
    """

    loss: LossConfig = DiceCEConfig()
    optimizer: Literal["adamw", "sgd"] = "adamw"
    num_threads: int | None = None
    compile: bool = False
    validation_share: float = 0.05
    validation_interval: int | None = None
    validation_cases: int | None = None
    validation_overlap: float = 0.5
