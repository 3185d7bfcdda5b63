"""Backends that can run the networks of a package on this machine, in the order of how soon they start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.inference.backends.exported_networks import EXPORT_ENDINGS, exported_paths
from pipeline.inference.backends.select_backend import Candidate, Models
from pipeline.inference.predictor_spec import PredictorSpec

_LOADING_S = {"torch": 2.0, "onnx": 0.4, "openvino": 0.8}
"""About what it takes to import each and to open its networks."""

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _has_gpu(device: str) -> bool:
    """Whether torch may find a GPU to work on: asked without importing it."""
    return device.startswith("cuda") or (device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")))


def is_ensemble(spec: PredictorSpec) -> bool:
    return any(len(paths) > 1 for paths in spec.models.values())


def _open_torch(spec: PredictorSpec, precision: str) -> Models:
    from pipeline.inference.backends.torch_backend import open_torch_models  # loads torch

    return {**open_torch_models(spec, precision)}


def _open_onnx(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.onnx_backend import open_onnx_models  # loads ONNX Runtime

    return {**open_onnx_models(spec)}


def _open_openvino(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.openvino_backend import open_openvino_models  # loads OpenVINO

    return {**open_openvino_models(spec)}


def _openers(spec: PredictorSpec) -> dict[str, Callable[[], Models]]:
    return {
        "torch": partial(_open_torch, spec, spec.settings.precision),
        "onnx": partial(_open_onnx, spec),
        "openvino": partial(_open_openvino, spec),
    }


def candidates_for(spec: PredictorSpec, installed: Callable[[str], bool] = _is_installed) -> list[Candidate]:
    """What can run the networks here, in the order of how soon it starts; at least one, else an error says why.

    installed: says if a Python package is there.
    """
    asked, openers = spec.settings.backend, _openers(spec)
    if spec.device.startswith("cuda") and (asked in EXPORT_ENDINGS or not installed("torch")):
        other = asked if asked in EXPORT_ENDINGS else "what is installed here"
        raise ConfigError(
            f"device: {spec.device!r} is torch's alone, and {other} works on the CPU; use device: auto or cpu"
        )
    if spec.settings.uncertainty and is_ensemble(spec) and (asked in EXPORT_ENDINGS or not installed("torch")):
        raise ConfigError("uncertainty: how an ensemble's networks disagree is computed by torch; use backend: torch")
    if asked != "auto":
        if not installed(_PACKAGES[asked]):
            extra = "" if asked == "torch" else f", e.g. with pip install 'segpipe[{asked}]'"
            raise ConfigError(f"backend: {asked} was asked for, but is not installed; use auto or install it{extra}")
        return [Candidate(asked, openers[asked], is_reference=True)]
    here = [name for name in ("onnx", "openvino", "torch") if installed(_PACKAGES[name])]
    only_torch = "torch" in here and (_has_gpu(spec.device) or (spec.settings.uncertainty and is_ensemble(spec)))
    exported = [name for name in here if name != "torch" and all(path.is_file() for path in exported_paths(spec, name))]
    if "torch" not in here:
        names = exported or ["onnx"]
        return [Candidate(name, openers[name], name == names[0], _LOADING_S[name]) for name in names]
    found = [] if only_torch else [Candidate(name, openers[name], False, _LOADING_S[name]) for name in exported]
    found.append(Candidate("torch", openers["torch"], True, _LOADING_S["torch"]))
    if not only_torch and spec.settings.precision == "plan" and spec.plan.precision != "fp32":
        found.append(Candidate("torch in fp32", partial(_open_torch, spec, "fp32"), True, loading_s=0.5))
    return found
