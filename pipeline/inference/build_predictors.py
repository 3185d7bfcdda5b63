"""From a plan and weight files to predictors, the same way in the infer stage, at prediction and in a service."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.inference.backends.available_backends import candidates_for
from pipeline.inference.backends.select_backend import select_backend
from pipeline.inference.backends.window_workload import empty_window, workload_of
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segmentation_jobs import Job

if TYPE_CHECKING:
    pass


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
        models = select_backend(candidates, workload_of(spec, jobs), spec.plan.overlapping, empty_window(spec))
    predictors = {name: Predictor(spec.plan, model, spec.settings) for name, model in models.items()}
    return predictors.__getitem__
