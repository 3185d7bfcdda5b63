"""Single DICOM files and their attributes.

Values are interpreted when they are asked for, and damage is never shown with the bytes in it. `place` is what messages
name, which is no file's name (often a UID).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.io.image_file_error import ImageFileError

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
EXPORT_AGAIN = "export the series again, whole and uncompressed"


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file (128 bytes, then DICM)."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Whether the folder itself holds DICOM files; a DICOMDIR alone does not count."""
    return any(is_dicom(path) for path in visible_files(folder)[:8])


def visible_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.name != "DICOMDIR")


def read_attributes(path: Path, place: Path, keywords: Sequence[str] | None = None) -> Dataset:
    """The file's attributes; only those of `keywords`, and not the pixels, where these are given."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values
    try:
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            # Such a file is unpacked whole before anything in it is looked at, whatever it grows to.
            raise ImageFileError(place, "dicom-deflated", "one of its DICOM files is deflated as a whole", EXPORT_AGAIN)
        return pydicom.dcmread(path, stop_before_pixels=keywords is not None, specific_tags=keywords)
    except dicom_read_errors():
        raise damaged_file(place) from None


def value_of(dataset: Dataset, keyword: str, place: Path) -> Any:
    """What an attribute says, None where it is not there or empty; values are interpreted when they are asked for."""
    try:
        value = dataset.get(keyword)
        return None if value is None or value == "" else value
    except dicom_read_errors():
        raise damaged_file(place) from None


def number_of(dataset: Dataset, keyword: str, place: Path, otherwise: float) -> float:
    """A single finite number, or `otherwise` where the attribute is not there, empty or 0."""
    try:
        number = float(value_of(dataset, keyword, place) or otherwise)
    except dicom_read_errors():
        raise damaged_file(place) from None
    if not np.isfinite(number):
        raise damaged_file(place)
    return number


def dicom_read_errors() -> tuple[type[Exception], ...]:
    """What pydicom raises for bytes that are not what they should be, with the bytes in its messages: never shown."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    builtin = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, OverflowError, NotImplementedError)
    return (*builtin, struct.error, zlib.error, BytesLengthException, InvalidDicomError)


def damaged_file(place: Path) -> ImageFileError:
    return ImageFileError(place, "dicom-damaged", "one of its DICOM files is damaged", EXPORT_AGAIN)
