"""Tables of a comparison: for the terminal, compare.csv and cases.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.base.terminal import format_table
from pipeline.evaluation.metrics.paired_tests import COMPARED
from pipeline.evaluation.read_scores import Scores

_SHOWN = 5


def comparison_table(result: dict[str, Any]) -> str:
    """The comparison of Dice as a table for the terminal."""
    rows = []
    for comparison in result["comparisons"]:
        for structure, metrics in comparison["structures"].items():
            if not (entry := metrics.get("dice")) or not entry["n"]:
                continue
            low, high = entry["difference"]["ci95"]
            rows.append(
                [
                    comparison["name"],
                    structure,
                    f"{entry['baseline_mean']:.4f}",
                    f"{entry['mean']:.4f}",
                    f"{entry['difference']['mean']:+.4f}",
                    "-" if low is None else f"{low:+.4f} to {high:+.4f}",
                    f"{entry['p_holm']:.2g}",
                    f"{entry['wins']}/{entry['losses']}/{entry['ties']}",
                ]
            )
    title = f"Dice against {result['baseline']}"
    columns = [title, "structure", "baseline", "Dice", "difference", "95 % interval", "p (Holm)", "won/lost/tied"]
    return format_table(columns, rows)


def difference_table(result: dict[str, Any]) -> str:
    """The cases whose Dice differs most, as a table for the terminal."""
    rows = [
        [c["name"], e["case"], e["structure"], f"{e['baseline']:.4f}", f"{e['dice']:.4f}", f"{e['difference']:+.4f}"]
        for c in result["comparisons"]
        for e in c["most_different"][:_SHOWN]
    ]
    return format_table(["differ most", "case", "structure", "baseline", "Dice", "difference"], rows)


def comparison_rows(result: dict[str, Any]) -> Iterator[list[Any]]:
    yield [
        "method", "baseline", "structure", "metric", "n", "baseline_mean", "mean", "difference",
        "ci95_low", "ci95_high", "p", "p_holm", "wins", "losses", "ties",
    ]  # fmt: skip
    for comparison in result["comparisons"]:
        for structure, metrics in comparison["structures"].items():
            for metric, e in metrics.items():
                spread = [e["difference"]["mean"], *e["difference"]["ci95"]]
                yield [
                    comparison["name"], result["baseline"], structure, metric, e["n"], e["baseline_mean"], e["mean"],
                    *spread, e["p"], e["p_holm"], e["wins"], e["losses"], e["ties"],
                ]  # fmt: skip


def case_rows(baseline: Scores, others: Sequence[Scores]) -> Iterator[list[Any]]:
    """Every value that was paired: case, structure, metric, and one column a source."""
    yield ["case", "structure", "metric", baseline.name, *(other.name for other in others)]
    for (case, structure), row in baseline.table.items():
        for metric in COMPARED:
            values = [other.table.get((case, structure), {}).get(metric) for other in others]
            if metric in row and any(value is not None for value in values):
                yield [case, structure, metric, row[metric], *values]


def csv_text(rows: Iterator[list[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{value:.9g}" if isinstance(value, float) else value for value in row])
    return stream.getvalue()
