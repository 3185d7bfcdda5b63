"""Segmentation of cases in this process, with networks built from a PredictorSpec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pipeline.inference.build_predictors import build_predictors
from pipeline.inference.domain_check import domain_shift_reasons
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import segment_cases
from pipeline.inference.segmentation_jobs import CaseResult, Job


def segment_in_process(
    jobs: Sequence[Job],
    spec: PredictorSpec,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
) -> Iterator[CaseResult]:
    """Segment every job in this process and yield the results in order; `begun` is told each case before."""
    if not jobs:
        return
    guard = (
        None
        if spec.fingerprint is None
        else partial(domain_shift_reasons, plan=spec.plan, fingerprint=spec.fingerprint)
    )
    yield from segment_cases(jobs, build_predictors(spec, jobs), guard, spec.strict, ahead, begun)
