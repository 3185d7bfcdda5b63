"""Evaluate: how good is it, per structure? Writes `per_case.csv` and `summary.json`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, safe_join
from pipeline.base.machine import Runtime
from pipeline.dataset.loaded_cases import Case, read_cases, require_recorded_root
from pipeline.evaluation.evaluate_pairs import Evaluation, Pair, evaluate_pairs
from pipeline.evaluation.metrics.score_case import MetricConfig
from pipeline.stages.stage_configs import EvaluateStageConfig

log = logging.getLogger(__name__)


def run(config: EvaluateStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Scores every prediction that has a reference; cases without a prediction are listed in the summary.

    Cases whose files cannot be compared failed, and are listed there too.
    """

    settings, cases = config.evaluate, read_cases(inputs["load"])
    tolerance = settings.nsd_tolerance_mm
    metrics = MetricConfig(
        tolerance_mm=tolerance if isinstance(tolerance, dict) else {},
        default_tolerance_mm=1.0 if isinstance(tolerance, dict) else tolerance,
        empty_policy=settings.empty_policy,
        surface=settings.surface,
        connectivity=settings.lesion_connectivity,
    )
    evaluation = Evaluation(
        cases.structures, metrics, settings.bootstrap_resamples, cases.ignore_value, cases.grid_tolerance_mm
    )
    by_id, root = {case.id: case for case in cases.cases}, require_recorded_root(inputs["load"])
    inferred = read_json(inputs["infer"] / "cases.json")["cases"]
    labelled = [entry for entry in inferred if by_id[entry["id"]].label is not None]
    columns = _group_columns([by_id[entry["id"]] for entry in labelled], settings.groups)
    pairs, not_scored = list[Pair](), dict[str, str]()
    for entry in labelled:
        case = by_id[entry["id"]]
        if entry["prediction"] is None:
            not_scored[case.id] = f"no prediction: {entry['message']}"
            continue
        groups = {column: _group(case, column) for column in columns}
        reference = safe_join(root, str(case.label))
        pairs.append(Pair(case.id, inputs["infer"] / entry["prediction"], reference, case.subject, groups))
    if not pairs and labelled:
        raise DataError("evaluate: no case with a reference label map has a prediction, so there is nothing to score")
    if not pairs:  # as after train.folds: full without labelled testing cases: the model can still be shipped
        log.warning("evaluate: no segmented case has a reference label map, so nothing is scored")
    # Files that were sound when they were loaded: what is wrong with one may pass, and a finished stage would stay.
    evaluate_pairs(pairs, evaluation, out, runtime, not_scored)


def _group(case: Case, column: str) -> str:
    return case.split if column == "split" else str(case.extra.get(column, ""))


def _group_columns(cases: list[Case], wanted: Literal["auto"] | tuple[str, ...]) -> list[str]:
    """The manifest columns to make subgroups by."""
    columns = ["split", *sorted({column for case in cases for column in case.extra})]
    if wanted != "auto":
        if unknown := [column for column in wanted if column not in columns]:
            raise DataError(f"evaluate.groups: no case has a column {unknown[0]!r}; there are: {', '.join(columns)}")
        return list(wanted)
    return [column for column in columns if _makes_groups(cases, column)]


def _makes_groups(cases: list[Case], column: str) -> bool:
    """Whether a column has 2 to 10 values, each of two subjects or more: what singles a patient out makes no groups."""
    subjects_of = Counter(group for group, _ in {(_group(case, column), case.subject) for case in cases})
    return 2 <= len(subjects_of) <= 10 and (column == "split" or min(subjects_of.values()) >= 2)
