"""Patient names and other identifiers of DICOM files, in the names of folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.io.dicom.dicom_file import is_dicom, read_attributes, value_of, visible_files

_IDENTIFIERS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae", "œ": "oe"})
_NAME_PARTS = re.compile(r"[\^=\s,]+")


def display_path(folder: Path) -> Path:
    """How a folder is named in messages: as it is, unless its name holds an identifier of the series in it."""
    return Path("DICOM series") if identifies_patient(folder) else folder


def identifies_patient(folder: Path) -> bool:
    """Whether the folder's name holds an identifier of the series in it, so that it must not become a case id.

    However it is spelled: with accents, without, or in two letters (ü, u, ue); of a name in several scripts, each.
    """
    first = next((path for path in visible_files(folder) if is_dicom(path)), None)
    if first is None:
        return False
    dataset = read_attributes(first, Path("DICOM series"), _IDENTIFIERS)
    names = _spellings(folder.name)
    words = {spelling for word in re.split(r"[\W_]+", folder.name) for spelling in _spellings(word)}
    for keyword in _IDENTIFIERS:
        found = value_of(dataset, keyword, Path("DICOM series")) or ""
        values = [found] if isinstance(found, str) or not isinstance(found, Sequence) else found
        for part in (part for value in values for part in _parts(keyword, str(value))):
            for spelling in _spellings(part):
                # Li, Wu: as words of their own; two characters of Chinese are a whole name.
                if len(spelling) == 2 and spelling.isascii():
                    if spelling in words:
                        return True
                elif len(spelling) > 1 and any(spelling in name for name in names):
                    return True
    return False


def may_identify_patient(folder: Path) -> bool:
    """True too where its files do not say whose they are; what is wrong with them is said when they are read."""
    try:
        return identifies_patient(folder)
    except (DataError, OSError):
        return True


def _parts(keyword: str, value: str) -> list[str]:
    """What of an identifier is one by itself: of a name each script's form, and the words in them."""
    return [value, *value.split("="), *_NAME_PARTS.split(value)] if keyword == "PatientName" else [value]


def _spellings(text: str) -> set[str]:
    """Letters and digits alone, in small and without accents; where there are umlauts, also as two letters."""
    small = unicodedata.normalize("NFC", text.casefold())
    return {_letters(small), _letters(small.translate(_UMLAUTS))}


def _letters(text: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFKD", text) if character.isalnum())
