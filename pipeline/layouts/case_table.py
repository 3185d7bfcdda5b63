"""A table beside folders of scans, with a row for every case: what it says of them beyond files.

TotalSegmentator's `meta.csv` is one: `image_id;age;gender;institute;...;split`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.layouts.found import Found, FoundCase, without_personal
from pipeline.layouts.table import SPLITS, is_table_file, rows_of

Row = Mapping[str, str]


def with_table(found: Found) -> Found:
    """`found` with the rows of the only table in its folder that has one for every case, by a column with their ids.

    A column `split` or `fold` says what it says in a table of cases; all others are kept as extra columns.
    """
    ids = {case.id for case in found.cases}
    tables = {path: by_id for path in _tables(found.folder) if (by_id := _rows_by_id(path, ids)) is not None}
    if not tables:
        return found
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        note = f"{names} all have a row for every case; none is used: leave the one that is meant, or name it"
        return replace(found, notes=(*found.notes, note))
    ((path, (column, rows)),) = tables.items()
    notes: set[str] = set()
    cases = tuple(_with_row(case, rows[case.id], column, notes) for case in found.cases)
    used = f"{path.name} has a row for every case, by its column {column!r}; its columns are kept for each"
    return replace(found, cases=cases, notes=(*found.notes, used, *sorted(notes)))


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and is_table_file(path)]


def _rows_by_id(path: Path, ids: set[str]) -> tuple[str, dict[str, Row]] | None:
    """The first column that names each case once, and the rows by it; None where there is no such column."""
    try:
        header, rows = rows_of(path)
    except DataError:  # nobody said that it belongs to these scans
        return None
    for column in header:
        by_id: dict[str, Row] = {row[column]: row for _, row in rows if row.get(column)}
        if ids <= by_id.keys() and len(by_id) == sum(1 for _, row in rows if row.get(column)):
            return column, by_id
    return None


def _with_row(case: FoundCase, row: Row, column: str, notes: set[str]) -> FoundCase:
    named = {name.lower(): name for name in row}
    split, fold = (row.get(named.get(name, ""), "") for name in ("split", "fold"))
    known = {column}
    if split.lower() in SPLITS:
        known.add(named.get("split", ""))
        labelled = case.label is not None or bool(case.masks)
        case = replace(case, split=SPLITS[split.lower()] if labelled and split else case.split)
        case = replace(case, fold=0) if split.lower().startswith("val") else case
    if fold.isdigit():
        known.add(named["fold"])
        case = replace(case, fold=int(fold))
    extra = {key: value for key, value in row.items() if key not in known}
    return replace(case, extra={**case.extra, **without_personal(extra, notes)})
