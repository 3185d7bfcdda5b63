"""From metrics per case and structure to `summary.json`: means with intervals and counts, in total and by subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics.bootstrap_intervals import Bootstrap, interval
from pipeline.evaluation.metrics.descriptive_statistics import describe_values
from pipeline.evaluation.metrics.score_case import METRICS, Row

MEAN_METRICS = (
    "dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_difference_ml", "volume_difference_percent",
    "precision", "recall", "hd_mm", "lesion_f1",
)  # fmt: skip
"""Those whose mean over structures means something."""


@dataclass(frozen=True)
class ScoredCase:
    """One case's metrics by structure. groups: what subgroup it is in, by column (site, scanner, split)."""

    id: str
    subject: str
    rows: Mapping[str, Row]
    groups: Mapping[str, str] = field(default_factory=dict)


def summarise(cases: Sequence[ScoredCase], structures: Sequence[str], resamples: int, seed: int = 0) -> dict[str, Any]:
    """`structures`, `mean`, `n_cases`, `n_subjects` and `groups` of `summary.json`.

    A structure's figures are over cases; `mean` is over structures, of their means. Background is no structure.
    """
    columns = sorted({column for case in cases for column in case.groups})
    groups: dict[str, dict[str, Any]] = {}
    for column in columns:
        members: dict[str, list[ScoredCase]] = {}
        for case in cases:
            members.setdefault(case.groups.get(column, ""), []).append(case)
        groups[column] = {value: _tables(members[value], structures, resamples, seed) for value in sorted(members)}
    return {**_tables(cases, structures, resamples, seed), "groups": groups}


def column(cases: Sequence[ScoredCase], structure: str, metric: str) -> NDArray[np.float64]:
    """A metric of one structure over cases, NaN where it is undefined."""
    values = (case.rows[structure][metric] for case in cases)
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _tables(cases: Sequence[ScoredCase], structures: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    bootstrap = Bootstrap.draw([case.subject for case in cases], resamples, seed)
    tables: dict[str, Any] = {}
    for name in structures:
        tables[name] = {metric: describe_values(column(cases, name, metric), bootstrap) for metric in METRICS}
        tables[name]["counts"] = _counts(cases, name)
    return {
        "structures": tables,
        "mean": {metric: _over_structures(cases, structures, metric, tables, bootstrap) for metric in MEAN_METRICS},
        "n_cases": len(cases),
        "n_subjects": len({case.subject for case in cases}),
    }


def _over_structures(
    cases: Sequence[ScoredCase],
    structures: Sequence[str],
    metric: str,
    tables: Mapping[str, Any],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Mean and spread of the structures' means; n structures. The interval is over subjects, not structures."""
    defined = [name for name in structures if tables[name][metric]["mean"] is not None]
    if not defined:
        return {"mean": None, "std": None, "ci95": [None, None], "n": 0}
    means = np.array([tables[name][metric]["mean"] for name in defined])
    values = [column(cases, name, metric) for name in defined]
    resampled = np.mean([bootstrap.means(one) for one in values], axis=0)
    subjects = min(bootstrap.subjects_with(one) for one in values)
    return {
        "mean": float(means.mean()),
        "std": float(means.std(ddof=1)) if len(means) > 1 else None,
        "ci95": list(interval(resampled, subjects)),
        "n": len(defined),
    }


def _counts(cases: Sequence[ScoredCase], structure: str) -> dict[str, int | float | None]:
    """How many cases stand behind a structure's means, and whether it was detected where it should be."""
    kinds = [case.rows[structure]["empty"] for case in cases]
    both, ref, pred = (kinds.count(kind) for kind in ("both_empty", "ref_empty", "pred_empty"))
    present, absent = len(cases) - both - ref, both + ref
    return {
        "n_cases": len(cases),
        "n_scored": int((~np.isnan(column(cases, structure, "dice"))).sum()),
        "n_ref_empty": absent,
        "n_pred_empty": both + pred,
        "n_both_empty": both,
        "n_false_positive": ref,
        "n_false_negative": pred,
        "detection_sensitivity": (present - pred) / present if present else None,
        "detection_specificity": both / absent if absent else None,
    }
