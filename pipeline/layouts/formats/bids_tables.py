"""Tables of BIDS: participants.tsv and the label names of dseg.tsv."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.io.image_file_names import stem
from pipeline.layouts.formats.table_rows import table_text
from pipeline.layouts.label_names import LabelNames
from pipeline.layouts.personal_columns import without_personal


def read_label_table(pipeline: Path, label: Path) -> LabelNames | None:
    """Names from the label map's own .tsv or from the pipeline's `*dseg.tsv` (columns index and name)."""
    places = [label.with_name(stem(label) + ".tsv"), *sorted(pipeline.glob("*dseg.tsv"))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    structures: dict[str, tuple[int, ...]] = {}
    for row in _tsv(path):
        index, name = row.get("index", ""), row.get("name", "")
        if not index.isdigit() or not name:
            raise DataError(
                f"{path}: a row has index {index!r} and name {name!r}; both are needed, index a whole number"
            )
        if int(index) != 0:
            structures[name] = (*structures.get(name, ()), int(index))
    return LabelNames(structures) if structures else None


def read_participants(folder: Path, notes: set[str]) -> dict[str, dict[str, str]]:
    path = folder / "participants.tsv"
    if not path.is_file():
        return {}
    people = {}
    for row in _tsv(path):
        subject = row.pop("participant_id", "")
        values = {key: value for key, value in row.items() if value != "n/a"}
        people[subject] = without_personal(values, notes)
    return people


def _tsv(path: Path) -> list[dict[str, str]]:
    lines = table_text(path)[0].splitlines()
    return [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(lines, delimiter="\t")]
