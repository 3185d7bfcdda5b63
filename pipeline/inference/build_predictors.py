"""From a plan and weight files to predictors, the same way in the infer stage, at prediction and in a service."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, SegpipeError
from pipeline.inference.backends.exported_networks import EXPORT_ENDINGS, exported_paths
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

if TYPE_CHECKING:
    pass

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
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
    if spec.device.startswith("cuda") and (asked in EXPORT_ENDINGS or not installed("torch")):
        other = asked if asked in EXPORT_ENDINGS else "what is installed here"
        raise ConfigError(
            f"device: {spec.device!r} is torch's alone, and {other} works on the CPU; use device: auto or cpu"
        )
    if spec.settings.uncertainty and _is_ensemble(spec) and (asked in EXPORT_ENDINGS or not installed("torch")):
        raise ConfigError("uncertainty: how an ensemble's networks disagree is computed by torch; use backend: torch")
    if asked != "auto":
        if not installed(_PACKAGES[asked]):
            extra = "" if asked == "torch" else f", e.g. with pip install 'segpipe[{asked}]'"
            raise ConfigError(f"backend: {asked} was asked for, but is not installed; use auto or install it{extra}")
        return [Candidate(asked, openers[asked], is_reference=True)]
    here = [name for name in ("onnx", "openvino", "torch") if installed(_PACKAGES[name])]
    only_torch = "torch" in here and (_has_gpu(spec.device) or (spec.settings.uncertainty and _is_ensemble(spec)))
    exported = [name for name in here if name != "torch" and all(path.is_file() for path in exported_paths(spec, name))]
    if "torch" not in here:
        names = exported or ["onnx"]
        return [Candidate(name, openers[name], name == names[0], _LOADING_S[name]) for name in names]
    found = [] if only_torch else [Candidate(name, openers[name], False, _LOADING_S[name]) for name in exported]
    found.append(Candidate("torch", openers["torch"], True, _LOADING_S["torch"]))
    if not only_torch and spec.settings.precision == "plan" and spec.plan.precision != "fp32":
        found.append(Candidate("torch in fp32", partial(_open_torch, spec, "fp32"), True, loading_s=0.5))
    return found


def workload_of(spec: PredictorSpec, jobs: Sequence[Job]) -> Workload:
    """What `jobs` (at least one) are to the networks: the windows of all, and one of the first scan to be read."""
    return Workload(jobs[0].model, _count_windows(spec, jobs), partial(_real_window, spec, jobs))


def _openers(spec: PredictorSpec) -> dict[str, Callable[[], Models]]:
    return {
        "torch": partial(_open_torch, spec, spec.settings.precision),
        "onnx": partial(_open_onnx, spec),
        "openvino": partial(_open_openvino, spec),
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


def _open_torch(spec: PredictorSpec, precision: str) -> Models:
    from pipeline.inference.backends.torch_backend import open_torch_models  # loads torch

    return {**open_torch_models(spec, precision)}


def _open_onnx(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.onnx_backend import open_onnx_models  # loads ONNX Runtime

    return {**open_onnx_models(spec)}


def _open_openvino(spec: PredictorSpec) -> Models:
    from pipeline.inference.backends.openvino_backend import open_openvino_models  # loads OpenVINO

    return {**open_openvino_models(spec)}
