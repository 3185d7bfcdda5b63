"""Which person a case is of, where folders tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.found import FoundCase

_SCANS_OF_A_PERSON, _STUDIES_OF_A_PERSON = 10, 5
"""At most, on average, where folders are persons, and where folders above those of cases are."""
_PERSONS = 10
"""At least, where folders above those of cases are: fewer may be hospitals."""


def with_subjects(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """`patient01/patient01_frame2` is of the subject patient01, where folders hold a few cases each.

    Those of `ct_train/ct_train_1001` are parts of the data set, and not persons.
    """
    folders = [case.images[0].parent for case in cases if _names_its_folder(folder, case.images[0])]
    if not folders:
        return _with_folders_of_studies(folder, cases)
    only = folders[0].name if len(set(folders)) == 1 else ""
    if len(folders) > _SCANS_OF_A_PERSON * len(set(folders)) or (only and not re.search(r"\d", only)):
        return list(cases)
    return [replace(case, subject=at.name) if (at := case.images[0].parent) in folders else case for case in cases]


def _with_folders_of_studies(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """`PETCT_01/study_2/CT` is of the subject PETCT_01, where many folders hold a few studies each."""
    above = [case.images[0].parent.parent for case in cases if case.id == case.images[0].parent.name]
    persons = set(above) - {folder}
    if len(above) < len(cases) or len(persons) < _PERSONS or len(cases) > _STUDIES_OF_A_PERSON * len(persons):
        return list(cases)
    return [replace(case, subject=case.images[0].parent.parent.name) for case in cases]


def _names_its_folder(folder: Path, path: Path) -> bool:
    """True for `patient01/patient01_frame2`: then the folder is the subject."""
    return path.parent != folder and path.name.startswith(path.parent.name)
