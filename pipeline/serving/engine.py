"""From a plan and weight files to predictors, the same way in the infer stage, at prediction and in a service."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.base.errors import DataError
from pipeline.base.runtime import resolve_device
from pipeline.data.plan import Plan
from pipeline.inference.predictor import Predictor, WindowModel
from pipeline.serving.spec import EngineSpec

if TYPE_CHECKING:
    import torch


def open_predictors(spec: EngineSpec) -> Callable[[str], Predictor]:
    """A function from a model's name to its predictor; every weight file is read once.

    Where torch is not installed (the slim image), the package's ONNX exports are run instead. Raises a DataError where
    weights do not fit the plan's network or exports are missing, a ConfigError where the device is not there.
    """
    models = _torch_models(spec) if find_spec("torch") is not None else _onnx_models(spec)
    predictors = {name: Predictor(spec.plan, model, spec.settings) for name, model in models.items()}
    return predictors.__getitem__


def _torch_models(spec: EngineSpec) -> dict[str, WindowModel]:
    from pipeline.inference.ensemble import TorchModel

    device = resolve_device(spec.device)
    precision = usable_precision(spec.settings.precision, spec.plan, device)
    networks = {path: _network(spec.plan, path) for paths in spec.models.values() for path in paths}
    return {
        name: TorchModel(
            [networks[path] for path in paths],
            device,
            precision,
            _mirror_axes(spec),
            spec.plan.overlapping,
            disagreement=spec.settings.uncertainty,
        )
        for name, paths in spec.models.items()
    }


def _onnx_models(spec: EngineSpec) -> dict[str, WindowModel]:
    from pipeline.inference.onnx_model import OnnxModel

    exports = {
        name: [path.parents[1] / "exports" / f"{path.stem}.onnx" for path in paths]
        for name, paths in spec.models.items()
    }
    for path in (path for paths in exports.values() for path in paths):
        if not path.is_file():
            raise DataError(f"{path}: without torch the package needs ONNX exports; package it with exports: [onnx]")
    return {name: OnnxModel(paths, _mirror_axes(spec)) for name, paths in exports.items()}


def _mirror_axes(spec: EngineSpec) -> tuple[int, ...]:
    return spec.plan.mirror_axes if spec.settings.mirror else ()


def usable_precision(asked: str, plan: Plan, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to use: as asked or planned; on a CPU bf16 only where it computes in it, and fp16 never."""
    import torch

    precision = plan.precision if asked == "plan" else asked
    if device.type == "cpu" and precision != "fp32":
        return "bf16" if asked == "bf16" or torch.cpu._is_avx512_bf16_supported() else "fp32"
    return precision  # type: ignore[return-value]


def _network(plan: Plan, path: Path) -> torch.nn.Module:
    from pipeline.models.checkpoint import load_weights
    from pipeline.models.networks import build_network

    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    weights = load_weights(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: does not fit the network of its plan ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network
