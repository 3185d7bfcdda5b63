"""Evaluate: how good is it, per structure? Writes `per_case.csv` and `summary.json`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.base.errors import ConfigError, DataError, did_you_mean
from pipeline.base.files import read_json
from pipeline.base.machine import Runtime
from pipeline.base.stage import Stage
from pipeline.base.strict_model import StrictModel

if TYPE_CHECKING:
    from pipeline.dataset.cases_json import Case, Cases

log = logging.getLogger(__name__)

Millimetres = Annotated[float, Field(gt=0)]


class EvaluateConfig(StrictModel):
    """How predictions are scored. Definitions: docs/definitions.md."""

    nsd_tolerance_mm: Millimetres | dict[str, Millimetres] = 1.0
    """Tolerance of the surface Dice: one number, or one per structure (1 mm for those not named)."""
    empty_policy: Literal["segpipe", "reloaded", "nnunet", "monai"] = "segpipe"
    """What a metric is where a structure is absent from reference or prediction, by whose rule."""
    surface: Literal["surfel", "voxel"] = "surfel"
    """surfel: surfaces weighted by area, as in surface-distance. voxel: edge voxels counted, as in MONAI."""
    lesion_connectivity: Literal[6, 18, 26] = 26
    """Voxels of one lesion join over faces (6), edges (18) or corners (26)."""
    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Resamples of subjects behind each 95 % interval."""
    groups: Literal["auto"] | tuple[str, ...] = "auto"
    """Manifest columns with a table for each of their values; auto: those of 2 to 10 values that subjects share."""

    @field_validator("nsd_tolerance_mm", mode="before")
    @classmethod
    def _millimetres(cls, given: Any) -> Any:
        """One message for what is neither a number nor numbers by name, instead of one for each."""
        numbers = given.values() if isinstance(given, dict) else [given]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) and n > 0 for n in numbers):
            raise ValueError(
                f"must be millimetres above 0, such as 1.0, or one per structure, {{liver: 2}}; got {given!r}"
            )
        return given


class EvaluateReads(StrictModel):
    """All of the configuration that this stage depends on."""

    evaluate: EvaluateConfig


def run(config: EvaluateReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Scores every prediction that has a reference; cases without a prediction are listed in the summary.

    Cases whose files cannot be compared failed, and are listed there too.
    """
    from pipeline.base.files import safe_join
    from pipeline.dataset.cases_json import read_cases, require_data_root
    from pipeline.evaluation.evaluate_pairs import Evaluation, Pair, evaluate_pairs
    from pipeline.evaluation.metrics.score_case import MetricConfig

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
    by_id, root = {case.id: case for case in cases.cases}, require_data_root(inputs["load"])
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


def check_against_data(settings: EvaluateConfig, cases: Cases) -> None:
    """Refuses (ConfigError) structures and columns that the data does not have; `run` asks before training."""
    tolerances = settings.nsd_tolerance_mm if isinstance(settings.nsd_tolerance_mm, dict) else {}
    for name in tolerances:
        if name not in cases.structures:
            hint = did_you_mean(name, list(cases.structures))
            raise ConfigError(f"evaluate.nsd_tolerance_mm: there is no structure {name!r}; {hint}")
    columns = {"split", *(column for case in cases.cases for column in case.extra)}
    for column in () if settings.groups == "auto" else settings.groups:
        if column not in columns:
            raise ConfigError(
                f"evaluate.groups: no case has a column {column!r}; there are: {', '.join(sorted(columns))}"
            )


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


STAGE = Stage(
    name="evaluate",
    version=3,
    config=EvaluateReads,
    reads={"evaluate": "evaluate"},
    inputs=("infer", "load"),
    outputs=("per_case.csv", "summary.json"),
    run=run,
)
