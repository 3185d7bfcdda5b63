"""From a plan and weight files to predictors, the same way in the infer stage, at prediction and in a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.base.errors import DataError
from pipeline.base.runtime import resolve_device
from pipeline.data.plan import Plan
from pipeline.inference.ensemble import TorchModel
from pipeline.inference.predictor import Predictor
from pipeline.inference.settings import InferenceSettings
from pipeline.models.checkpoint import load_weights
from pipeline.models.networks import build_network


@dataclass(frozen=True)
class EngineSpec:
    """All that predictors are built from, as plain values that another process can be given.

    models: a name (for instance a fold) to the weight files of its ensemble. fingerprint: what scans are compared with
    before they are segmented (see `pipeline.serving.guard`); strict: an unlike one is refused, not only remarked on.
    """

    plan: Plan
    settings: InferenceSettings
    models: Mapping[str, tuple[Path, ...]]
    device: str = "auto"
    fingerprint: Mapping[str, Any] | None = None
    strict: bool = False


def open_predictors(spec: EngineSpec) -> Callable[[str], Predictor]:
    """A function from a model's name to its predictor; every weight file is read once.

    Raises a DataError where weights do not fit the plan's network, a ConfigError where the device is not there.
    """
    device = resolve_device(spec.device)
    precision = usable_precision(spec.settings.precision, spec.plan, device)
    networks = {path: _network(spec.plan, path) for paths in spec.models.values() for path in paths}
    mirror_axes = spec.plan.mirror_axes if spec.settings.mirror else ()
    predictors = {
        name: Predictor(
            spec.plan,
            TorchModel(
                [networks[path] for path in paths],
                device,
                precision,
                mirror_axes,
                spec.plan.overlapping,
                disagreement=spec.settings.uncertainty,
            ),
            spec.settings,
        )
        for name, paths in spec.models.items()
    }
    return predictors.__getitem__


def usable_precision(asked: str, plan: Plan, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to use: as asked or planned; on a CPU bf16 only where it computes in it, and fp16 never."""
    precision = plan.precision if asked == "plan" else asked
    if device.type == "cpu" and precision != "fp32":
        return "bf16" if asked == "bf16" or torch.cpu._is_avx512_bf16_supported() else "fp32"
    return precision  # type: ignore[return-value]


def _network(plan: Plan, path: Path) -> torch.nn.Module:
    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    weights = load_weights(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: does not fit the network of its plan ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network
