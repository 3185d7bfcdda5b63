"""CSV and TSV tables: one row per case, image and label columns, everything else kept as extra columns."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.dataset.loaded_cases import Channel
from pipeline.io.image_file_names import image_ending
from pipeline.layouts.case_ids import ids_of, refuse_shared_ids
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, Split
from pipeline.layouts.formats.table_rows import (
    first_of,
    fold_of,
    reader_of,
    rows_of,
    table_text,
    with_numbered_patients,
)
from pipeline.layouts.list_files import image_files
from pipeline.layouts.personal_columns import without_personal

_ID = ("id", "case", "case_id", "caseid", "subjectid")
SUBJECT = ("subject", "subject_id", "patient", "participant", "participant_id")
PERSON = ("patient_id", "patientid", "patient id", "mrn")
"""Columns that tell patients apart by what must not get into the manifest."""
SPLIT = ("split", "subset", "set")
_IMAGE = re.compile(r"^(?:image|img|scan|channel)s?(?:[_ -]?(?:path|file))?(?:[_ -](.+)|(\d+))?$", re.I)
_LABEL = re.compile(r"^(?:label|seg|segmentation|mask)s?(?:[_ -]?(?:path|file))?$", re.I)
_MASK = re.compile(r"^(?:label|seg|segmentation|mask)s?[_ -](?!path$|file$)(.+)$", re.I)
SPLITS: dict[str, Split] = {
    **dict.fromkeys(("", "train", "training", "tr", "validation", "valid", "val"), "training"),
    **dict.fromkeys(("test", "testing", "ts"), "testing"),
}


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what. images: channel name to column; masks: structure to the one of its masks."""

    images: Mapping[str, str]
    label: str | None
    masks: Mapping[str, str]
    id: str | None
    subject: str | None
    person: str | None
    split: str | None
    fold: str | None

    @property
    def known(self) -> set[str | None]:
        own = {self.label, self.id, self.subject, self.person, self.split, self.fold}
        return {*self.images.values(), *self.masks.values(), *own}


def is_table(path: Path) -> bool:
    """True for a .csv or .tsv file with an image column."""
    return is_table_file(path) and any(_IMAGE.match(name.strip()) for name in reader_of(path).fieldnames or ())


def lists_images(path: Path) -> bool:
    """True for a table whose image column names scans, and not, say, folders with several files each."""
    if not is_table(path):
        return False
    header, rows = rows_of(path)
    return any(_holds_files(path.parent, name, rows) for name in header if _IMAGE.match(name))


def read(path: Path) -> DatasetListing:
    """Reads a table; paths in it are relative to its folder (or absolute).

    Columns, in any case: image or image_T1, image_FLAIR, ... (also Channel_0, ...), label (mask, seg) or a mask per
    structure (label_liver, mask_tumour), id, subject, split (training, validation, testing), fold. A row with split
    `validation` is validated in fold 0. Patients of a column such as PatientID are told apart and not named: they
    become patient_001, ... Raises a DataError that names the lines of doubled ids.
    """
    header, rows = rows_of(path)
    columns = _columns(path, header, rows)
    notes: set[str] = set()
    if table_text(path)[1]:
        notes.add(f"{path.name} is not UTF-8; read as Windows-1252, so look whether its umlauts and accents are right")
    if columns.person:
        rows = with_numbered_patients(rows, columns.person)
        notes.add(f"column {columns.person!r} may identify a person: patient_001, ... stand for its values")
    problems: list[Problem] = []
    read_rows = [(line, _case(path, line, row, columns, notes, problems)) for line, row in rows]
    found = [(line, case) for line, case in read_rows if case is not None]
    ids = ids_of([case.images[0] for _, case in found])
    cases = [replace(case, id=case.id or name) for name, (_, case) in zip(ids, found, strict=True)]
    claims: dict[str, list[str]] = defaultdict(list)
    for case, (line, _) in zip(cases, found, strict=True):
        claims[case.id].append(f"line {line}")
    refuse_shared_ids(claims)
    if not cases:
        raise DataError(f"{path}: has a header but no rows with an image")
    channels = tuple(Channel(name=name, modality=modality_of(name)) for name in columns.images)
    return DatasetListing(
        layout="csv",
        folder=path.parent,
        name=path.stem,
        channels=channels,
        cases=tuple(cases),
        notes=tuple(sorted(notes)),
        problems=tuple(problems),
    )


def _columns(path: Path, header: Sequence[str], rows: Sequence[tuple[int, Mapping[str, str]]]) -> Columns:
    labels = [name for name in header if _LABEL.match(name)]
    named = [(match.group(1) or match.group(2) or "", name) for name in header if (match := _IMAGE.match(name))]
    found = [(channel, name) for channel, name in named if _holds_files(path.parent, name, rows)]
    if not found:
        raise DataError(
            f"{path}: no image column among {', '.join(header)}; "
            "name it 'image', or 'image_T1', 'image_FLAIR', ... for channels"
        )
    if len(labels) > 1:
        raise DataError(f"{path}: several label columns ({', '.join(labels)}); keep one, as one label map per case")
    masks = {m.group(1): name for name in header if (m := _MASK.match(name)) and _holds_files(path.parent, name, rows)}
    images = {name if name and not name.isdigit() else f"channel_{name or 0}": column for name, column in found}
    if len(images) == 1:
        images = {name if not name.startswith("channel_") else "image": column for name, column in images.items()}
    return Columns(
        images=images,
        label=labels[0] if labels else None,
        masks={} if labels else masks,
        id=first_of(header, _ID),
        subject=first_of(header, SUBJECT),
        person=first_of(header, PERSON),
        split=first_of(header, SPLIT),
        fold=first_of(header, ("fold",)),
    )


def _holds_files(folder: Path, column: str, rows: Sequence[tuple[int, Mapping[str, str]]]) -> bool:
    """False for columns such as image_date or image_id: their first entry is no image file's name, nor there on disk
    as a file or as a folder of DICOM files."""
    first = next((row[column] for _, row in rows if row.get(column)), None)
    if first is None or image_ending(Path(first)):
        return True
    place = _file(folder, first)
    return place.exists() and not (place.is_dir() and image_files(place))


def _file(folder: Path, text: str) -> Path:
    """The file that a table names; one made on Windows has backslashes."""
    path = folder / text
    return path if path.exists() or "\\" not in text else folder / text.replace("\\", "/")


def _case(
    path: Path, line: int, row: Mapping[str, str], columns: Columns, notes: set[str], problems: list[Problem]
) -> ListedCase | None:
    where = f"{path.name} line {line}"
    images = [row[column] for column in columns.images.values()]
    if not any(row.values()):
        return None
    if not all(images):
        empty = [column for column in columns.images.values() if not row[column]]
        problems.append(Problem(where, f"column {', '.join(empty)} is empty; row left out"))
        return None
    split = row.get(columns.split or "", "").lower()
    if split not in SPLITS:
        raise DataError(f"{where}: split is {split!r}; allowed: training, validation, testing")
    fold = row.get(columns.fold or "", "")
    if fold and fold_of(fold) is None:
        raise DataError(f"{where}: fold is {fold!r}; it must be a whole number from 0, or empty")
    paths = tuple(_file(path.parent, image) for image in images)
    label = _file(path.parent, row[columns.label]) if columns.label and row.get(columns.label) else None
    masks = {name: _file(path.parent, row[column]) for name, column in columns.masks.items() if row.get(column)}
    files = [*paths, *([label] if label else []), *masks.values()]
    if missing := [str(file.name) for file in files if not file.exists()]:
        problems.append(Problem(where, f"no such file: {', '.join(missing)}"))
    extra = {key: value for key, value in row.items() if key not in columns.known}
    return ListedCase(
        id=row.get(columns.id or "", ""),
        images=paths,
        label=label,
        masks=masks,
        split=SPLITS[split] if label or masks or split else "testing",
        subject=row.get(columns.subject or "", "") or row.get(columns.person or "", ""),
        fold=fold_of(fold) if fold else (0 if split.startswith("val") else None),
        extra=without_personal(extra, notes),
    )


def is_table_file(path: Path) -> bool:
    """True for a .csv or .tsv file that can be read as a table."""
    if path.suffix.lower() not in {".csv", ".tsv"} or not path.is_file():
        return False
    try:
        return bool(reader_of(path).fieldnames)
    except csv.Error:  # no table at all, such as something binary
        return False
