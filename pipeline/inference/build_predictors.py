"""From a plan and weight files to predictors, the same way in the infer stage, at prediction and in a service."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, SegpipeError
from pipeline.base.machine import resolve_device, usable_cores
from pipeline.inference.backends.select_backend import Candidate, Models, Workload, select_backend
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import CASE_FAULTS
from pipeline.inference.segmentation_jobs import Job
from pipeline.inference.sliding_window import window_grid
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import resampled_grid
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.preprocessing.plan import Plan

if TYPE_CHECKING:
    import torch

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
_EXPORTS = {"onnx": ".onnx", "openvino": ".xml"}
_LOADING_S = {"torch": 2.0, "onnx": 0.4, "openvino": 0.8}
"""About what it takes to import each and to open its networks."""


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def build_predictors(spec: PredictorSpec, jobs: Sequence[Job] = ()) -> Callable[[str], Predictor]:
    """A function from a model's name to its predictor; every weight file is read once.

    What runs the networks is `settings.backend`; `auto` measures what there is for the windows of `jobs`, or without
    jobs takes torch, or where that is not installed (the slim image) an export. Raises a DataError where weights do not
    fit the plan's network or exports are missing, a ConfigError where the device or the backend is not there.
    """
    # Large tensors on pages of 2 MiB: a window's logits are taken and given back for every window, and giving them
    # pages of 4 KiB takes longer than filling them. torch reads this when it takes its first memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    candidates = candidates_for(spec)
    if len(candidates) == 1 or not jobs:
        models = next((c for c in candidates if c.is_reference), candidates[0]).open()
    else:
        models = select_backend(candidates, workload_of(spec, jobs), spec.plan.overlapping, _empty_window(spec))
    predictors = {name: Predictor(spec.plan, model, spec.settings) for name, model in models.items()}
    return predictors.__getitem__


def candidates_for(spec: PredictorSpec, installed: Callable[[str], bool] = _is_installed) -> list[Candidate]:
    """What can run the networks here, in the order of how soon it starts; at least one, else an error says why.

    installed: says if a Python package is there.
    """
    asked, openers = spec.settings.backend, _openers(spec)
    if spec.device.startswith("cuda") and (asked in _EXPORTS or not installed("torch")):
        raise ConfigError(
            f"device: {spec.device!r} is torch's alone, and {asked if asked in _EXPORTS else 'what is installed here'} "
            "works on the CPU; use device: auto or cpu"
        )
    if spec.settings.uncertainty and _is_ensemble(spec) and (asked in _EXPORTS or not installed("torch")):
        raise ConfigError("uncertainty: how an ensemble's networks disagree is computed by torch; use backend: torch")
    if asked != "auto":
        if not installed(_PACKAGES[asked]):
            extra = "" if asked == "torch" else f", e.g. with pip install 'segpipe[{asked}]'"
            raise ConfigError(f"backend: {asked} was asked for, but is not installed; use auto or install it{extra}")
        return [Candidate(asked, openers[asked], is_reference=True)]
    here = [name for name in ("onnx", "openvino", "torch") if installed(_PACKAGES[name])]
    only_torch = "torch" in here and (_has_gpu(spec.device) or (spec.settings.uncertainty and _is_ensemble(spec)))
    exported = [name for name in here if name != "torch" and all(path.is_file() for path in _exports(spec, name))]
    if "torch" not in here:
        names = exported or ["onnx"]
        return [Candidate(name, openers[name], name == names[0], _LOADING_S[name]) for name in names]
    found = [] if only_torch else [Candidate(name, openers[name], False, _LOADING_S[name]) for name in exported]
    found.append(Candidate("torch", openers["torch"], True, _LOADING_S["torch"]))
    if not only_torch and spec.settings.precision == "plan" and spec.plan.precision != "fp32":
        found.append(Candidate("torch in fp32", partial(_torch_models, spec, "fp32"), True, loading_s=0.5))
    return found


def workload_of(spec: PredictorSpec, jobs: Sequence[Job]) -> Workload:
    """What `jobs` (at least one) are to the networks: the windows of all, and one of the first scan to be read."""
    return Workload(jobs[0].model, _count_windows(spec, jobs), partial(_real_window, spec, jobs))


def _openers(spec: PredictorSpec) -> dict[str, Callable[[], Models]]:
    return {
        "torch": partial(_torch_models, spec, spec.settings.precision),
        "onnx": partial(_onnx_models, spec),
        "openvino": partial(_openvino_models, spec),
    }


def _has_gpu(device: str) -> bool:
    """Whether torch may find a GPU to work on: asked without importing it."""
    return device.startswith("cuda") or (device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")))


def _is_ensemble(spec: PredictorSpec) -> bool:
    return any(len(paths) > 1 for paths in spec.models.values())


def _count_windows(spec: PredictorSpec, jobs: Sequence[Job]) -> int:
    """The windows of all jobs whose headers can be read."""
    count = 0
    for job in jobs:
        try:
            _, canonical = to_canonical(read_image_header(job.images[0]).grid)
        except SegpipeError:
            continue
        planned = resampled_grid(canonical, spec.plan.spacing_mm).shape
        count += window_grid(
            planned, spec.settings.window(spec.plan.patch_size), spec.settings.overlap, spec.settings.starts
        ).count
    return count


def _empty_window(spec: PredictorSpec) -> NDArray[np.float32]:
    return np.zeros((1, len(spec.plan.channels), *spec.settings.window(spec.plan.patch_size)), np.float32)


def _real_window(spec: PredictorSpec, jobs: Sequence[Job], models: Models) -> NDArray[np.float32]:
    """The window (1, C, *roi) in the middle of the first job that can be read; the empty one where none can."""
    for job in jobs[:5]:
        predictor = Predictor(spec.plan, models[job.model], spec.settings)
        try:
            grid = read_image_header(job.images[0]).grid
            predictor.enlargement(grid)
            predictor.use_half_precision(predictor.needs(grid))
            image = predictor.prepare(read_image(job.images, spec.plan.resample_channels)).conformed.image
        except CASE_FAULTS:
            continue  # the batch will say what is wrong with it
        windows = window_grid(image.shape[1:], spec.settings.window(spec.plan.patch_size), 0.5)
        middle = tuple(starts[len(starts) // 2] for starts in windows.starts)
        return np.ascontiguousarray(windows.cut(image, middle)[None])
    return _empty_window(spec)


def _torch_models(spec: PredictorSpec, precision: str) -> Models:
    import torch

    from pipeline.inference.backends.torch_backend import TorchModel

    device = resolve_device(spec.device)
    if device.type == "cpu":  # within a container's share of time: torch counts the machine's cores
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    usable = usable_precision(precision, spec.plan, device)
    networks = {path: _network(spec.plan, path) for paths in spec.models.values() for path in paths}
    return {
        name: TorchModel(
            [networks[path] for path in paths],
            device,
            usable,
            _mirror_axes(spec),
            spec.plan.overlapping,
            disagreement=spec.settings.uncertainty,
        )
        for name, paths in spec.models.items()
    }


def _onnx_models(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.onnx_backend import OnnxModel

    exports = _checked_exports(spec, "onnx")
    return {name: OnnxModel(paths, _mirror_axes(spec)) for name, paths in exports.items()}


def _openvino_models(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.openvino_backend import OpenVinoModel

    precision = spec.plan.precision if spec.settings.precision == "plan" else spec.settings.precision
    exports = _checked_exports(spec, "openvino")
    return {name: OpenVinoModel(paths, _mirror_axes(spec), bf16=precision != "fp32") for name, paths in exports.items()}


def _checked_exports(spec: PredictorSpec, kind: str) -> Mapping[str, Sequence[Path]]:
    for path in _exports(spec, kind):
        if not path.is_file():
            raise DataError(f"{path}: running the package by {kind} needs it; package it with exports: [{kind}]")
    return {name: [_export(path, kind) for path in paths] for name, paths in spec.models.items()}


def _exports(spec: PredictorSpec, kind: str) -> list[Path]:
    return [_export(path, kind) for paths in spec.models.values() for path in paths]


def _export(weights: Path, kind: str) -> Path:
    return weights.parents[1] / "exports" / f"{weights.stem}{_EXPORTS[kind]}"


def _mirror_axes(spec: PredictorSpec) -> tuple[int, ...]:
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
    from pipeline.models.networks.build_network import build_network

    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    weights = load_weights(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: does not fit the network of its plan ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network
