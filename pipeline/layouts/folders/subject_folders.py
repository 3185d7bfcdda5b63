"""Which person a case is of, where folders tell."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.layouts.dataset_listing import ListedCase, some_of
from pipeline.layouts.folders.find_case_folders import distinguishing_parts, ids_of_folders
from pipeline.layouts.folders.name_vocabulary import (
    is_only_role_name,
    is_side_or_time,
    is_split_name,
    is_unambiguous_side_or_time,
)
from pipeline.layouts.subject_ids import subject_of

_SCANS_OF_A_PERSON, _STUDIES_OF_A_PERSON = 10, 5
"""At most, on average, where folders are persons, and where folders above those of cases are."""
_PERSONS, _NAMED_PERSONS = 10, 2
"""At least, where folders above those of cases are (fewer may be hospitals), and where they are called so."""
_PERSON = re.compile(r"(patient|pat|sub(ject)?|case|p)[_-]?\d+", re.I)
_RAW = re.compile(r"(orig(inal)?|raw|native|source|unprocessed)([_-]?(data|images?|space))?", re.I)
_VERSION = re.compile(rf"{_RAW.pattern}|(pre|prep|proc|reg|norm|resampled|aligned|warped)\w*([_-]?\w+)?", re.I)
_PARTS = {"train", "training", "tr", "test", "testing", "ts", "val", "valid", "validation"}


def add_subjects(folder: Path, cases: Sequence[ListedCase]) -> list[ListedCase]:
    """`patient01/patient01_frame2` is of the subject patient01, where folders hold a few cases each.

    Those of `ct_train/ct_train_1001` are parts of the data set, and not persons. What is known stays.
    """
    told = _told(folder, cases)
    return [case if case.subject else new for case, new in zip(cases, told, strict=True)]


def subjects_of_folders(folder: Path, cases: Collection[Path]) -> tuple[dict[Path, str], list[str]]:
    """Case folders to subjects, where it takes several folders' names to tell cases apart; and what was assumed.

    `anna/week-2` and `baseline/anna` are of anna; empty where one name tells. A DataError where they are versions of
    one scan, of which one is meant.
    """
    parts = distinguishing_parts(folder, cases)
    if len({own[-1:] for own in parts.values()}) == len(parts):
        return {}, []
    lower, upper = {own[-1] for own in parts.values()}, {own[-2] for own in parts.values() if len(own) > 1}
    if any(map(_RAW.fullmatch, lower)) and all(map(_VERSION.fullmatch, lower)):
        raise DataError(
            f"{folder}: {', '.join(sorted(lower))} hold versions of the same scans; name those that are meant, for "
            f"instance --image-files /{next((name for name in sorted(lower) if not _RAW.fullmatch(name)), min(lower))}/"
        )
    people = len(upper) > 1 and all(map(_PERSON.fullmatch, upper))
    if people or all(map(is_unambiguous_side_or_time, lower)):
        return {case: "_".join(own[:-1]) for case, own in parts.items()}, []
    if all(map(is_side_or_time, upper)):
        return {case: own[-1] for case, own in parts.items()}, []
    shown = some_of(sorted("/".join(own[-2:]) for own in parts.values()))
    return {}, [f"cases are called by several folders ({shown}), and each is taken for another person; a table may say"]


def _told(folder: Path, cases: Sequence[ListedCase]) -> list[ListedCase]:
    folders = [case.images[0].parent for case in cases if _names_its_folder(folder, case.images[0])]
    if not folders:
        return _with_folders_of_studies(folder, cases)
    only = folders[0].name if len(set(folders)) == 1 else ""
    named = all(_PERSON.fullmatch(place.name) for place in folders)
    many = len(folders) > _SCANS_OF_A_PERSON * len(set(folders)) and not named
    if many or (only and not re.search(r"\d", only)):
        return list(cases)
    persons = ids_of_folders(folder, set(folders))
    if all(is_split_name(name.split("_")[0]) for name in persons.values()):
        return list(cases)
    return [
        replace(case, subject=subject_of(persons[at])) if (at := case.images[0].parent) in persons else case
        for case in cases
    ]


def _with_folders_of_studies(folder: Path, cases: Sequence[ListedCase]) -> list[ListedCase]:
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
    if path.parent == folder or is_only_role_name(path.parent.name) or parts & _PARTS:
        return False
    return path.name.startswith(path.parent.name) or bool(_PERSON.fullmatch(path.parent.name))
