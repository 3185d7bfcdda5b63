"""The plan as rows of a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.preprocessing.plan import Plan

_LONG = 16
_SHOWN = ("axcodes", "spacing_mm", "crop", "channels", "image_interpolation", "label_interpolation", "patch_size",
          "batch_size", "network", "precision", "max_steps", "num_threads", "mirror_axes", "mirror_swaps",
          "class_weights")  # fmt: skip


def plan_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """The plan as rows for a person: key, value, reason."""
    values: Mapping[str, Any] = plan.model_dump(mode="json")
    settings = (f"{key}={_short(value)}" for key, value in plan.network.items() if value not in (None, 0, 0.0, False))
    special = {
        "network": " ".join(settings).removeprefix("name="),
        "channels": ", ".join(f"{channel.name} {channel.scheme}" for channel in plan.channels),
    }
    rows = [(key, special.get(key, _few(values[key])), plan.reasons.get(key, "")) for key in _SHOWN]
    return [*rows, *((key, f"{value:.3g}", "predicted") for key, value in plan.predicted.items())]


def _few(value: Any) -> str:
    """A value as it is written; of a list as long as the structures are many, how many and how far they go."""
    if isinstance(value, list) and len(value) > _LONG and all(isinstance(each, int | float) for each in value):
        return f"{len(value)} values from {min(value):.3g} to {max(value):.3g}"
    return str(value)


def _short(value: Any) -> str:
    """Levels as 16-32-64, per axis as 111-222."""
    if isinstance(value, (list, tuple)):
        return "-".join("".join(map(str, each)) if isinstance(each, (list, tuple)) else str(each) for each in value)
    return str(value)
