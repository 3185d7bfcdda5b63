"""Compares methods case by case: `segpipe compare`. The first source is the baseline, every other one is held to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import write_json, write_text
from pipeline.evaluation.comparison_tables import (
    case_rows,
    comparison_rows,
    comparison_table,
    csv_text,
    difference_table,
)
from pipeline.evaluation.metrics.paired_tests import COMPARED, TIE, holm, paired_differences
from pipeline.evaluation.read_scores import Scores, read_scores

log = logging.getLogger(__name__)

MEAN = "mean"
_MOST_DIFFERENT = 10


Draw = Callable[[Scores, Sequence[Scores], Sequence[dict[str, Any]], Path], None]
"""Draws the paired differences: scores of the baseline and of the others, their comparisons, and the file to write."""


def compare_runs(
    paths: Sequence[Path], output_dir: Path, resamples: int = 2000, draw: Draw | None = None
) -> dict[str, Any]:
    """Writes `compare.json`, `compare.csv` (one row a structure and metric), `cases.csv` (every paired value) and, if
    `draw` is given, `compare.png`, logs a table, returns what `compare.json` holds.

    paths: two or more run folders, folders or files with scores, or nnU-Net's summary.json; the first is the
    baseline. p-values are Wilcoxon's, corrected by Holm over all structures and methods of one metric. Raises a
    ConfigError for fewer than two paths, a DataError where a source has no scores or shares no case with the baseline.
    """
    if len(paths) < 2:
        raise ConfigError("compare needs two or more runs or summaries; the first is the baseline")
    baseline, *others = read_scores(paths)
    comparisons = [_compare(baseline, other, resamples) for other in others]
    _correct(comparisons)
    result = {
        "baseline": baseline.name,
        "sources": [{"name": s.name, "path": str(s.path), "n_cases": len(s.cases)} for s in (baseline, *others)],
        "comparisons": comparisons,
        "definitions": {
            "difference": "method minus baseline, case by case",
            "ci95": f"expanded percentile bootstrap of the mean difference, {resamples} resamples of subjects",
            "p": "Wilcoxon signed-rank, two-sided, over cases; how much another training of the same method would "
            "differ is no part of it",
            "p_holm": "corrected by Holm over all structures and methods of one metric; "
            "the mean over structures is a family of its own",
            "wins": "cases where the method is better than the baseline",
        },
    }
    write_json(output_dir / "compare.json", result)
    write_text(output_dir / "compare.csv", csv_text(comparison_rows(result)))
    write_text(output_dir / "cases.csv", csv_text(case_rows(baseline, others)))
    if draw is not None:
        draw(baseline, others, comparisons, output_dir / "compare.png")
    log.info("%s\n\n%s", comparison_table(result), difference_table(result))
    return result


def _compare(baseline: Scores, other: Scores, resamples: int) -> dict[str, Any]:
    cases = [case for case in baseline.cases if case in set(other.cases)]
    structures = [name for name in baseline.structures if name in set(other.structures)]
    if not cases or not structures:
        what = "structure" if cases else "case"
        ids = [(s.structures if cases else s.cases)[:3] for s in (baseline, other)]
        shown = " … and ".join(", ".join(some) for some in ids)
        raise DataError(f"{baseline.path} and {other.path} have no {what} in common ({shown} …)")
    # nnU-Net's summary states none: there, each case is its own subject
    told = baseline.subjects if any(s != c for c, s in baseline.subjects.items()) else other.subjects
    subjects = [told[case] for case in cases]
    tables: dict[str, dict[str, Any]] = {}
    for name in [*structures, *([MEAN] if len(structures) > 1 else [])]:
        tables[name] = {}
        for metric in COMPARED:
            ours, theirs = (_column(scores, name, metric, cases, structures) for scores in (baseline, other))
            if not (np.isnan(ours).all() or np.isnan(theirs).all()):
                tables[name][metric] = paired_differences(metric, ours, theirs, subjects, resamples)
    alone = [[name for name in s.structures if name not in structures] for s in (baseline, other)]
    for scores, names in zip((baseline, other), alone, strict=True):
        if names:
            log.warning("not compared, since only %s has it: %s", scores.name, ", ".join(names))
    differing = _defined_differently(baseline, other, structures)
    if differing:
        log.warning("%s and %s define differently: %s", baseline.name, other.name, ", ".join(differing))
    return {
        "name": other.name,
        "n_common": len(cases),
        "only_in_baseline": [case for case in baseline.cases if case not in set(cases)],
        "only_in_this": [case for case in other.cases if case not in set(cases)],
        "structures_only_in_baseline": alone[0],
        "structures_only_in_this": alone[1],
        "defined_differently": differing,
        "structures": tables,
        "most_different": _most_different(baseline, other, structures, cases),
    }


def _defined_differently(baseline: Scores, other: Scores, structures: Sequence[str]) -> list[str]:
    """Definitions that differ, where both sources state theirs; tolerances of common structures only."""
    if not baseline.definitions or not other.definitions:
        return []

    def stated(scores: Scores, key: str) -> Any:
        value = scores.definitions.get(key)
        return {name: value.get(name) for name in structures} if isinstance(value, dict) else value

    return [key for key in baseline.definitions if stated(baseline, key) != stated(other, key)]


def _column(
    scores: Scores, name: str, metric: str, cases: Sequence[str], structures: Sequence[str]
) -> NDArray[np.float64]:
    """A metric over cases; for `mean` its mean over all structures, NaN where one of them is undefined."""
    if name != MEAN:
        return scores.column(name, metric, cases)
    columns: NDArray[np.float64] = np.array([scores.column(structure, metric, cases) for structure in structures])
    return columns.mean(axis=0)


def _correct(comparisons: Sequence[dict[str, Any]]) -> None:
    """Adds `p_holm` to every entry: one family per metric, the mean over structures apart."""
    for metric in COMPARED:
        for of_mean in (False, True):
            entries = [
                metrics[metric]
                for comparison in comparisons
                for name, metrics in comparison["structures"].items()
                if (name == MEAN) == of_mean and metric in metrics
            ]
            for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
                entry["p_holm"] = corrected


def _most_different(
    baseline: Scores, other: Scores, structures: Sequence[str], cases: Sequence[str]
) -> list[dict[str, Any]]:
    """The cases and structures whose Dice differs most, the largest difference first."""
    found = []
    for structure in structures:
        ours, theirs = (scores.column(structure, "dice", cases) for scores in (baseline, other))
        found += [
            {"case": case, "structure": structure, "baseline": a, "dice": b, "difference": b - a}
            for case, a, b in zip(cases, ours.tolist(), theirs.tolist(), strict=True)
            if abs(b - a) > TIE  # which NaN never is
        ]
    return sorted(found, key=lambda entry: -abs(entry["difference"]))[:_MOST_DIFFERENT]
