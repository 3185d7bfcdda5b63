"""A table beside folders of scans, with a row for every case: what it says of them beyond files.

TotalSegmentator's `meta.csv` is one: `image_id;age;gender;institute;...;split`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, some_of
from pipeline.layouts.formats.csv_table import PERSON, SPLIT, SPLITS, SUBJECT, is_table_file
from pipeline.layouts.formats.table_rows import first_of, fold_of, rows_of, with_numbered_patients
from pipeline.layouts.personal_columns import without_personal
from pipeline.layouts.subject_ids import subject_of

_COUNTED = re.compile(r"\d+")
_NAMES_CASES = re.compile(r"(^|[_ -])(id|case|name|subject|patient|participant|scan|image|study)s?([_ -]|$)|id$", re.I)


@dataclass(frozen=True)
class _Joined:
    """A table's rows by case id, joined by `column`; `without`: the cases that it has no row for."""

    header: Sequence[str]
    column: str
    lines: Mapping[str, int]
    without: Sequence[str]
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def add_table_columns(found: DatasetListing) -> DatasetListing:
    """`found` with the rows of the only table beside its cases that has one for each, by a column with their names.

    Columns of subject, split and fold say what they say in a table of cases; all others are kept as extra columns.
    A table that lacks a case is not used, and named.
    """
    tables = {path: joined for path in _tables(found) if (joined := _joined(path, found.cases)) is not None}
    full = [path for path, joined in tables.items() if not joined.without]
    problems = [] if full else [_nearly(path, joined) for path, joined in tables.items()]
    if len(full) > 1:
        names = " and ".join(path.name for path in full)
        problems = [Problem(names, "all have a row for every case; none is used: leave only the one that is meant")]
    if len(full) != 1:
        return replace(found, problems=(*found.problems, *problems))
    return _with_rows(found, full[0].name, tables[full[0]])


def _tables(found: DatasetListing) -> list[Path]:
    """Those in the folder, and on the way from it to where all cases lie."""
    common = Path(os.path.commonpath([case.images[0].parent for case in found.cases]))
    places = [common, *common.parents] if common.is_relative_to(found.folder) else [found.folder]
    return [
        path
        for place in places
        if place.is_relative_to(found.folder)
        for path in sorted(place.iterdir())
        if not path.name.startswith(".") and is_table_file(path)
    ]


def _joined(path: Path, cases: Sequence[ListedCase]) -> _Joined | None:
    """The rows of a table by the column that names most cases, by id or else by subject; None for less than half."""
    try:
        header, rows = rows_of(path)
    except DataError:  # nobody said that it belongs to these scans
        return None
    counted = all(_COUNTED.fullmatch(case.id) for case in cases)
    columns = [name for i, name in enumerate(header) if not counted or i == 0 or _NAMES_CASES.search(name)]
    best: _Joined | None = None
    for key in (_id, _subject):
        for column in columns:
            count = Counter(row.get(column, "").casefold() for _, row in rows)
            once = {
                name: line for line, (_, row) in enumerate(rows) if count[name := row.get(column, "").casefold()] == 1
            }
            by_id = {case.id: once[key(case).casefold()] for case in cases if key(case).casefold() in once}
            if 2 * len(by_id) >= len(cases) and (best is None or len(by_id) > len(best.lines)):
                best = _Joined(header, column, by_id, [case.id for case in cases if case.id not in by_id])
    if best is None:
        return None
    persons = first_of(header, SUBJECT) or first_of(header, PERSON)
    if persons and persons != best.column:  # whoever they are called, they are only told apart
        rows = with_numbered_patients(rows, persons)
    return replace(best, rows={case: rows[line][1] for case, line in best.lines.items()})


def _id(case: ListedCase) -> str:
    return case.id


def _subject(case: ListedCase) -> str:
    return case.subject or subject_of(case.id)


def _nearly(path: Path, joined: _Joined) -> Problem:
    found = f"its column {joined.column!r} names most cases, and has no row for {some_of(joined.without)}"
    return Problem(path.name, f"{found}; not used: add rows, or take these cases out of the folder")


def _with_rows(found: DatasetListing, name: str, joined: _Joined) -> DatasetListing:
    split, subject = first_of(joined.header, SPLIT), first_of(joined.header, SUBJECT) or first_of(joined.header, PERSON)
    fold, notes, unknown = first_of(joined.header, ("fold",)), set[str](), Counter[str]()
    cases = []
    for case in found.cases:
        row = joined.rows[case.id]
        said, number = row.get(split or "", "").lower(), fold_of(row.get(fold or "", ""))
        if said not in SPLITS:
            unknown[said] += 1
        elif said and (case.label is not None or case.masks):
            case = replace(case, split=SPLITS[said], fold=0 if said.startswith("val") else case.fold)
        if number is not None:
            case = replace(case, fold=number)
        if subject and subject != joined.column and row.get(subject):
            case = replace(case, subject=row[subject])
        known = {joined.column, subject, fold, *([split] if said in SPLITS else [])}
        extra = {key: value for key, value in row.items() if key not in known}
        cases.append(replace(case, extra={**case.extra, **without_personal(extra, notes)}))
    used = f"{name} has a row for every case, by its column {joined.column!r}; its columns are kept for each"
    problems = [
        Problem(name, f"{split} is {value!r} for {count} cases: not understood, so they stay where they are; allowed: "
                "training, validation, testing")
        for value, count in unknown.items()
    ]  # fmt: skip
    return replace(
        found,
        cases=tuple(cases),
        notes=(*found.notes, used, *sorted(notes)),
        problems=(*found.problems, *problems),
    )
