"""Which person a case is of, where folders tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.found import FoundCase, subject_of
from pipeline.layouts.naming import says_role_alone

_SCANS_OF_A_PERSON, _STUDIES_OF_A_PERSON = 10, 5
"""At most, on average, where folders are persons, and where folders above those of cases are."""
_PERSONS, _NAMED_PERSONS = 10, 2
"""At least, where folders above those of cases are (fewer may be hospitals), and where they are called so."""
_PERSON = re.compile(r"(patient|pat|sub(ject)?|case|p)[_-]?\d+", re.I)
_PARTS = {"train", "training", "tr", "test", "testing", "ts", "val", "valid", "validation"}


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
    persons = set(folders)
    return [
        replace(case, subject=subject_of(at.name)) if (at := case.images[0].parent) in persons else case
        for case in cases
    ]


def _with_folders_of_studies(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """`PETCT_01/study_2/CT` is of the subject PETCT_01, where many folders hold a few studies each.

    Its case is `study_2`, or `PETCT_01_study_2` where others have a study_2 too.
    """
    studies = [case for case in cases if f"_{case.id}".endswith(f"_{case.images[0].parent.name}")]
    persons = {place for case in studies if (place := case.images[0].parent.parent) != folder}
    enough = _NAMED_PERSONS if all(_PERSON.fullmatch(place.name) for place in persons) else _PERSONS
    if len(studies) < len(cases) or len(persons) < enough or len(cases) > _STUDIES_OF_A_PERSON * len(persons):
        return list(cases)
    return [
        replace(case, subject=at.name) if (at := case.images[0].parent.parent) in persons else case for case in cases
    ]


def _names_its_folder(folder: Path, path: Path) -> bool:
    """True for `patient01/patient01_frame2`: then the folder is the subject, unless it is called for its role."""
    parts = set(re.split(r"[_\-. ]+", path.parent.name.lower()))
    if path.parent == folder or says_role_alone(path.parent.name) or parts & _PARTS:
        return False
    return path.name.startswith(path.parent.name)
