"""Workload of a batch for choosing a backend: how many windows its scans have, and one real window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import SegpipeError
from pipeline.inference.backends.select_backend import Models, Workload
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segmentation_jobs import CASE_FAULTS, Job
from pipeline.inference.sliding_window import window_grid
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import resampled_grid
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header


def empty_window(spec: PredictorSpec) -> NDArray[np.float32]:
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
    return empty_window(spec)


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


def workload_of(spec: PredictorSpec, jobs: Sequence[Job]) -> Workload:
    """What `jobs` (at least one) are to the networks: the windows of all, and one of the first scan to be read."""
    return Workload(jobs[0].model, _count_windows(spec, jobs), partial(_real_window, spec, jobs))
