"""Runs a list of cases through predictors that are built from an `EngineSpec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from pipeline.inference.batch import segment
from pipeline.inference.jobs import CaseResult, Job
from pipeline.serving.engine import EngineSpec, open_predictors
from pipeline.serving.guard import unlike_training


def segment_jobs(jobs: Sequence[Job], spec: EngineSpec) -> Iterator[CaseResult]:
    """Segments every job and yields what became of it, in order."""
    if not jobs:
        return
    guard = None if spec.fingerprint is None else partial(unlike_training, plan=spec.plan, fingerprint=spec.fingerprint)
    yield from segment(jobs, open_predictors(spec), guard, spec.strict)
