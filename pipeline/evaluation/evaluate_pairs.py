"""Scores pairs of label maps on disk into `per_case.csv` and `summary.json`, for a run and for `segpipe score`."""

from __future__ import annotations

import csv
import io
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
from pipeline.base.terminal import format_table
from pipeline.evaluation.metrics.confusion_matrix import disjoint_label_sets
from pipeline.evaluation.metrics.looks_like_image import value_count_if_image
from pipeline.evaluation.metrics.metric_definitions import definitions
from pipeline.evaluation.metrics.score_case import METRICS, MetricConfig, score_case
from pipeline.evaluation.metrics.summary import ScoredCase, summarise
from pipeline.io.formats import GRID_TOLERANCE_MM, IMAGE_ENDINGS, read_label, stem
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
    write_text(output / "per_case.csv", _per_case_csv(cases))
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


def score(
    pred_dir: Path,
    ref_dir: Path,
    labels: str,
    output_dir: Path,
    metrics: MetricConfig | None = None,
    runtime: Runtime | None = None,
    ignore_value: int | None = None,
) -> dict[str, Any]:
    """`segpipe score`: scores each prediction in a folder against the reference with the same case id.

    labels: `name=value,...`, a region as `name=1+2`. References without a prediction are listed as not scored, and so
    are pairs that cannot be.
    Raises a ConfigError for labels or folders that cannot be used, a DataError for a prediction without a reference.
    """
    structures = parse_labels(labels)
    if of := [name for name, values in structures.items() if ignore_value in values]:
        raise ConfigError(
            f"--ignore {ignore_value} is a value of {', '.join(of)}; it can be scored or left out, not both"
        )
    evaluation = Evaluation(structures, metrics or MetricConfig(), ignore_value=ignore_value)
    preds, refs = _label_files(pred_dir), _label_files(ref_dir)
    if orphans := [Problem(case, f"{preds[case]} has no reference in {ref_dir}") for case in preds if case not in refs]:
        raise DataError(problem_list(f"{pred_dir}", orphans))
    missing = {case: "no prediction" for case in refs if case not in preds}
    pairs = [Pair(case, preds[case], refs[case], subject=case) for case in sorted(preds)]
    return evaluate_pairs(pairs, evaluation, output_dir, runtime or Runtime(), missing, go_on=True)


def parse_labels(text: str) -> dict[str, tuple[int, ...]]:
    """`liver=1,tumour=2,organ=1+2` as names with label values; a ConfigError says what is wrong."""
    structures: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, sign, values = (piece.strip() for piece in part.partition("="))
        numbers = [number.strip() for number in values.split("+")]
        if not name or not sign or not all(number.isdecimal() for number in numbers):
            raise ConfigError(f"--labels: {part!r} must be name=value, for instance --labels liver=1,tumour=2")
        if name in structures:
            raise ConfigError(f"--labels: {name!r} stands twice")
        if 0 in (found := tuple(int(number) for number in numbers)):
            raise ConfigError(f"--labels: {part!r}: 0 is the background, which is not scored")
        if len(set(found)) < len(found):
            raise ConfigError(f"--labels: {part!r} names a value twice")
        if twin := next((other for other, values in structures.items() if set(values) == set(found)), None):
            raise ConfigError(
                f"--labels: {twin!r} and {name!r} are both {values}; give each structure a value of its own"
            )
        structures[name] = found
    return structures


def parse_tolerances(text: str) -> dict[str, Any]:
    """`2`, or `liver=2,tumour=1` (1 mm for those not named), as the fields of `MetricConfig`; else a ConfigError."""
    try:
        if "=" not in text:
            found = {"": float(text)}
        else:
            found = {name.strip(): float(mm) for name, _, mm in (part.partition("=") for part in text.split(","))}
    except ValueError:
        found = {}
    if not found or not all(mm > 0 for mm in found.values()):
        raise ConfigError(f"--nsd-tolerance-mm: {text!r} is no length above 0; write 2, or liver=2,tumour=1")
    return {"default_tolerance_mm": found.pop("", 1.0), "tolerance_mm": found}


def summary_table(summary: Mapping[str, Any]) -> str:
    """The main figures as a table for the terminal."""

    def cell(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rows = []
    for name, table in [*summary["structures"].items(), ("mean", summary["mean"])]:
        low, high = table["dice"]["ci95"]
        rows.append(
            [
                name,
                cell(table["dice"]["mean"], 4),
                "-" if low is None else f"{low:.4f} to {high:.4f}",
                cell(table["iou"]["mean"], 4),
                cell(table["hd95_mm"]["mean"], 2),
                cell(table["assd_mm"]["mean"], 3),
                cell(table["nsd"]["mean"], 4),
                f"{table['counts']['n_scored']}/{table['counts']['n_cases']}" if "counts" in table else "",
            ]
        )
    return format_table(["structure", "Dice", "95 % interval", "IoU", "HD95 mm", "ASSD mm", "NSD", "cases"], rows)


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


def _per_case_csv(cases: Sequence[ScoredCase]) -> str:
    groups = sorted({column for case in cases for column in case.groups})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "structure", *METRICS, "empty", "subject", *groups])
    for case in cases:
        for name, row in case.rows.items():
            values = [row[metric] for metric in (*METRICS, "empty")]
            cells = [f"{value:.9g}" if isinstance(value, float) else value for value in values]
            writer.writerow([case.id, name, *cells, case.subject, *(case.groups.get(column, "") for column in groups)])
    return stream.getvalue()


def _label_files(folder: Path) -> dict[str, Path]:
    """The label maps of a folder by case id."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or not path.name.lower().endswith(tuple(IMAGE_ENDINGS)):
            continue
        if (case := stem(path)) in found:
            raise DataError(f"{found[case]} and {path} are both label maps of case {case!r}; keep one")
        found[case] = path
    if not found:
        raise DataError(f"{folder}: no label maps here; their names end in {', '.join(IMAGE_ENDINGS)}")
    return found
