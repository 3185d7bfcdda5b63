"""Results of the evaluation, as one value: every metric of every case and structure, and the order of the cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import read_json

# Columns that `evaluate` writes behind the metrics: words, not figures (subjects are not shown in reports).
_BEHIND_METRICS = frozenset({"empty", "subject"})


@dataclass(frozen=True)
class Results:
    """values: (cases, structures, metrics), NaN where undefined. summary: `summary.json` as it is."""

    cases: tuple[str, ...]
    structures: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    summary: Mapping[str, Any]

    def of(self, metric: str) -> NDArray[np.float64]:
        """(cases, structures) of one metric; all NaN where it was not computed."""
        if metric not in self.metrics:
            return np.full(self.values.shape[:2], np.nan)
        return self.values[:, :, self.metrics.index(metric)]

    def mean_over_structures(self, metric: str) -> NDArray[np.float64]:
        """One number a case: the mean over the structures for which the metric is defined, else NaN."""
        table = self.of(metric)
        known = ~np.isnan(table)
        counts = known.sum(axis=1)
        return np.divide(np.where(known, table, 0.0).sum(axis=1), counts, np.full(len(table), np.nan), where=counts > 0)

    def worst_first(self) -> list[int]:
        """Cases by mean Dice, the lowest first; those without any defined Dice are left out."""
        dice = self.mean_over_structures("dice")
        return sorted(np.flatnonzero(~np.isnan(dice)).tolist(), key=lambda i: (dice[i], self.cases[i]))

    def worst_and_median(self, worst: int, median: int) -> tuple[list[int], list[int]]:
        """The `worst` lowest cases and the `median` ones in the middle of the order; no case is in both."""
        order = self.worst_first()
        lowest = order[:worst]
        first = max((len(order) - median + 1) // 2, len(lowest))
        return lowest, order[first : first + median]


def read_results(evaluate: Path) -> Results:
    """Reads `per_case.csv` and `summary.json`; structures and cases keep the order of their first row."""
    path = evaluate / "per_case.csv"
    summary = read_json(evaluate / "summary.json")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; `segpipe evaluate CONFIG` writes it") from None
    if columns[:2] != ["case", "structure"]:
        raise DataError(f"{path}: its columns begin with {columns[:2]}; they must begin with case, structure")
    cases = tuple(dict.fromkeys(row["case"] for row in rows))
    structures = tuple(dict.fromkeys([*summary.get("structures", {}), *(row["structure"] for row in rows)]))
    metrics = tuple(columns[2 : _first_of(columns, _BEHIND_METRICS)])
    values = np.full((len(cases), len(structures), len(metrics)), np.nan)
    case_index, structure_index = _indices(cases), _indices(structures)
    for row in rows:
        numbers = [float(row[name]) if row[name] else np.nan for name in metrics]
        values[case_index[row["case"]], structure_index[row["structure"]]] = numbers
    return Results(cases, structures, metrics, values, summary)


def _indices(names: tuple[str, ...]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _first_of(columns: list[str], names: frozenset[str]) -> int:
    return next((i for i, column in enumerate(columns) if column in names), len(columns))
