"""Check of the inference settings against the plan: window, mirroring and names of structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.inference.predictor_config import PostprocessConfig, PredictorConfig
from pipeline.models.networks.network_config import size_divisor
from pipeline.preprocessing.plan import Plan


def check_inference_settings(settings: PredictorConfig, plan: Plan) -> None:
    """Refuse a window that the network cannot take, unknown structures, and mirroring that training did not do.

    Raises:
        ConfigError: Names the key, what the plan has, and what to use instead.
    """
    check_structures(settings.postprocess, plan.structures)
    if settings.mirror and not plan.mirror_axes:
        why = plan.reasons.get("mirror_axes", "plan.mirror_axes names none")
        raise ConfigError(f"infer.mirror: training mirrors along no axis ({why}); use infer.mirror: false")
    steps = size_divisor(plan.network)
    if (roi := settings.roi_size) is None or not any(size % step for size, step in zip(roi, steps, strict=True)):
        return
    x, y, z = (max(round(size / step), 1) * step for size, step in zip(roi, steps, strict=True))
    raise ConfigError(
        f"infer.roi_size: {list(roi)} is not divisible by {list(steps)}, as this {plan.network['name']} needs; use "
        f"{[x, y, z]}, or leave it out for the plan's {list(plan.patch_size)}"
    )


def check_structures(
    settings: PostprocessConfig | Literal["none", "auto"], structures: Mapping[str, tuple[int, ...]]
) -> None:
    """ConfigError where a step names a structure that the data set does not have."""
    if isinstance(settings, str):
        return
    for step, names in settings:
        for name in names:
            if name not in structures:
                hint = did_you_mean(name, list(structures))
                raise ConfigError(f"infer.postprocess.{step}: there is no structure {name!r}; {hint}")
