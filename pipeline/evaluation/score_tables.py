"""Scores as tables: per_case.csv, and the summary for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.base.terminal import format_table
from pipeline.evaluation.metrics.score_case import METRICS
from pipeline.evaluation.metrics.summary import ScoredCase


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


def per_case_csv(cases: Sequence[ScoredCase]) -> str:
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
