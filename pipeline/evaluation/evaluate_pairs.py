"""Scores pairs of label maps on disk into `per_case.csv` and `summary.json`, for a run and for `segpipe score`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, Problem, did_you_mean, problem_list
from pipeline.base.files import write_json, write_text
from pipeline.base.machine import Runtime
from pipeline.evaluation.metrics.confusion_matrix import disjoint_label_sets
from pipeline.evaluation.metrics.looks_like_image import value_count_if_image
from pipeline.evaluation.metrics.metric_definitions import definitions
from pipeline.evaluation.metrics.score_case import MetricConfig, score_case
from pipeline.evaluation.metrics.summary import ScoredCase, summarise
from pipeline.evaluation.score_tables import per_case_csv, summary_table
from pipeline.io.grid_difference import GRID_TOLERANCE_MM
from pipeline.io.read_label import read_label
from pipeline.parallel.map_cases import map_cases

log = logging.getLogger(__name__)

Structures = Mapping[str, tuple[int, ...]]

WORTH_A_POOL = 2 * 2**20
"""Bytes of label maps above which starting worker processes saves time; below, scoring takes a second or two."""


@dataclass(frozen=True)
class Pair:
    """A prediction and its reference on disk. groups: the case's subgroup by column."""

    id: str
    pred: Path
    ref: Path
    subject: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What is scored and how; bootstrap_resamples: of the intervals."""

    structures: Structures
    metrics: MetricConfig = field(default_factory=MetricConfig)
    bootstrap_resamples: int = 2000
    ignore_value: int | None = None
    grid_tolerance_mm: float = GRID_TOLERANCE_MM
    """Corner distance up to which prediction and reference lie on one grid."""

    def __post_init__(self) -> None:
        for name in self.metrics.tolerance_mm:
            if name not in self.structures:
                hint = did_you_mean(name, list(self.structures))
                raise ConfigError(f"evaluate.nsd_tolerance_mm: there is no structure {name!r}; {hint}")


def evaluate_pairs(
    pairs: Sequence[Pair],
    evaluation: Evaluation,
    output: Path,
    runtime: Runtime,
    not_scored: Mapping[str, str] | None = None,
    go_on: bool = False,
    worth_a_pool: int = WORTH_A_POOL,
) -> dict[str, Any]:
    """Scores every pair, writes `per_case.csv` and `summary.json` into `output`, logs a table, returns the summary.

    not_scored: case to the reason why there is no pair of it; it goes into the summary. Raises a DataError that names
    all pairs that cannot be read or do not lie on one grid; go_on: only where there are no others, else they are not
    scored either. worth_a_pool: fewer bytes of label maps are scored in this process alone.
    """
    if sum(path.stat().st_size for pair in pairs for path in (pair.pred, pair.ref) if path.is_file()) < worth_a_pool:
        runtime = replace(runtime, executor="serial")
    scored = list(map_cases(partial(_score, evaluation=evaluation), pairs, runtime, "evaluate"))
    faults = {pair.id: one for pair, one in zip(pairs, scored, strict=True) if isinstance(one, str)}
    if faults and not (go_on and len(faults) < len(pairs)):
        problems = [Problem(case, fault) for case, fault in faults.items()]
        raise DataError(problem_list("the comparison of predictions with references", problems))
    not_scored = {**(not_scored or {}), **faults}
    results = [one for one in scored if not isinstance(one, str)]
    cases = [case for case, _ in results]
    names = list(evaluation.structures)
    summary = summarise(cases, names, evaluation.bootstrap_resamples)
    summary["confusion"] = _confusion([matrix for _, matrix in results], evaluation.structures)
    summary["not_scored"] = [{"case": case, "reason": reason} for case, reason in sorted(not_scored.items())]
    summary["label_values"] = {name: list(values) for name, values in evaluation.structures.items()}
    summary["definitions"] = definitions(evaluation.metrics, names, evaluation.bootstrap_resamples)
    write_text(output / "per_case.csv", per_case_csv(cases))
    write_json(output / "summary.json", summary)
    log.info("%s", summary_table(summary))
    for name, table in summary["structures"].items():
        if cases and table["counts"]["n_both_empty"] == len(cases):
            values = " or ".join(map(str, evaluation.structures[name]))
            log.warning("%s: no label map, reference or prediction, has a voxel of value %s", name, values)
    if not_scored:
        log.warning(
            "not scored, and in no mean: %s", ", ".join(f"{case} ({not_scored[case]})" for case in sorted(not_scored))
        )
    return summary


def _confusion(matrices: Sequence[NDArray[np.int64]], structures: Structures) -> dict[str, Any] | None:
    """The sum over all cases, with what its rows and columns are; None without a case."""
    if not matrices:
        return None
    return {"labels": ["background", *disjoint_label_sets(structures)], "voxels": np.sum(matrices, axis=0).tolist()}


def _score(pair: Pair, evaluation: Evaluation) -> tuple[ScoredCase, NDArray[np.int64]] | str:
    """One case's metrics and confusion matrix, or why it cannot be scored."""
    try:
        pred, ref = read_label(pair.pred), read_label(pair.ref)
    except DataError as error:
        return str(error)
    for path, labels in ((pair.pred, pred.array), (pair.ref, ref.array)):
        if (values := value_count_if_image(labels)) and not _are_declared(labels, evaluation):
            return (
                f"{path} looks like an image and not like a label map: it has {values} different values, and most "
                "neighbouring voxels differ; give label maps"
            )
    if not pred.grid.close_to(ref.grid, evaluation.grid_tolerance_mm):
        found = (
            f"{pred.grid.shape} and {ref.grid.shape} voxels"
            if pred.grid.shape != ref.grid.shape
            else f"corners up to {pred.grid.distance_mm(ref.grid):.3g} mm apart"
        )
        return (
            f"{pair.pred} and {pair.ref} do not lie on one grid ({found}); resample the prediction onto the reference"
        )
    spacing_mm = ref.grid.spacing_mm
    result = score_case(
        pred.array, ref.array, evaluation.structures, spacing_mm, evaluation.metrics, evaluation.ignore_value
    )
    return ScoredCase(pair.id, pair.subject or pair.id, result.rows, pair.groups), result.confusion


def _are_declared(labels: NDArray[Any], evaluation: Evaluation) -> bool:
    """Whether a structure has each value, so that it is a label map however it looks: one of speckles, for instance."""
    ignored = [] if evaluation.ignore_value is None else [evaluation.ignore_value]
    values = [value for some in evaluation.structures.values() for value in some]
    return bool(np.isin(labels, [0, *values, *ignored]).all())
