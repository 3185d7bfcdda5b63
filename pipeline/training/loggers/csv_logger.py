"""CSV files of training: metrics.csv, which is repeatable and enters digests, and timing.csv, which does neither."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.files import write_text

if TYPE_CHECKING:
    pass


class CsvTable:
    """A CSV file that grows by rows and can be cut back to the step that training resumes from."""

    def __init__(self, path: Path, columns: Sequence[str], resumed_step: int) -> None:
        self.path, self.columns = path, list(columns)
        rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if _step_of(row) <= resumed_step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: row.get(column, "") for column in self.columns} for row in rows)
        write_text(path, text.getvalue())

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a row; columns that it does not name stay empty."""
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def _step_of(row: Mapping[str, str | None]) -> float:
    """A row's step; a half-written last row belongs to no step."""
    text = row.get("step") or ""
    return int(text) if text.isdigit() and None not in row.values() else float("inf")
