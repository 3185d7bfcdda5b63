"""Metrics that training wrote as CSV, read back as series for the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Fold:
    """What `metrics.csv` and `timing.csv` of one fold hold: column to (step, value), empty cells left out."""

    name: str
    metrics: Mapping[str, Series]
    timing: Mapping[str, Series]
    best_step: int | None = None


def read_fold(folder: Path, name: str, best_step: int | None) -> Fold:
    """Reads one fold's records; a missing timing.csv is an empty one."""
    return Fold(name, _columns(folder / "metrics.csv"), _columns(folder / "timing.csv"), best_step)


def _columns(path: Path) -> dict[str, Series]:
    if not path.is_file():
        return {}
    columns: dict[str, Series] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            step = row.get("step") or row.get("epoch")
            for name, cell in row.items():
                if step and cell and name not in {"step", "epoch"} and isfinite(float(cell)):
                    columns.setdefault(name, []).append((float(step), float(cell)))
    return columns
