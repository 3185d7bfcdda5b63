"""Folders of DICOM series: images without labels, one case per series, under ids that identify nobody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.dataset.loaded_cases import Channel
from pipeline.io.dicom.dicom_file import holds_dicom, is_dicom
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase
from pipeline.layouts.list_files import folders_below

_NAME, _ID, _MODALITY = "PatientName", "PatientID", "Modality"
_UID = re.compile(r"\d+(\.\d+){4,}")


@dataclass(frozen=True)
class _Series:
    """A folder with DICOM files, and what one of them says. `identifiers` stay in memory: they are never written."""

    folder: Path
    modality: str
    identifiers: tuple[str, ...]
    """The patient's id and name, where the file has them."""

    @property
    def patient(self) -> str:
        """What is equal for the series of one patient; the folder, where the files do not say."""
        return next(filter(None, self.identifiers), str(self.folder))

    def is_named_in(self, path: Path) -> bool:
        """True where folder names carry a UID, or the name or id of the patient."""
        text = _bare(str(path))
        words = [_bare(word) for identifier in self.identifiers for word in re.split(r"[\^ ,]+", identifier)]
        words += [_bare(identifier) for identifier in self.identifiers]
        return bool(_UID.search(str(path))) or any(word in text for word in words if len(word) >= 3)


def has_series(folder: Path) -> bool:
    """True where some file below the folder is DICOM."""
    return next(_series_folders(folder), None) is not None


def read(folder: Path) -> DatasetListing:
    """Each folder with DICOM files becomes a testing case: `series_001`, of subject `patient_001`, ...

    Numbers follow the sorted folders; no identifier, name or date of the files enters the result, and where folders
    themselves are named by one, `paths_identify` is set. Raises a DataError where there is no series.
    """
    series = [_look(place) for place in _series_folders(folder)]
    if not series:
        raise DataError(f"{folder}: no folder in it holds DICOM files")
    identify = any(one.is_named_in(folder.name / one.folder.relative_to(folder)) for one in series)
    modality, count = Counter(one.modality for one in series).most_common(1)[0]
    notes = ["ids count series and patients in the order of their folders; nothing else says which is which"]
    if count < len(series):
        others = sorted({one.modality for one in series} - {modality})
        notes.append(f"series of {', '.join(others)} are among those of {modality}; take them out or keep them apart")
    patients = {one: f"patient_{i:03d}" for i, one in enumerate(dict.fromkeys(one.patient for one in series), 1)}
    return DatasetListing(
        layout="dicom",
        folder=folder,
        name="DICOM series" if identify else folder.name,
        channels=(Channel(name=modality, modality=modality_of(modality)),),
        paths_identify=identify,
        cases=tuple(
            ListedCase(id=f"series_{i:03d}", images=(one.folder,), split="testing", subject=patients[one.patient])
            for i, one in enumerate(series, 1)
        ),
        notes=tuple(notes),
    )


def _series_folders(folder: Path) -> Iterator[Path]:
    """Folders (this one too) that hold DICOM files, in order."""
    for place in sorted(folders_below(folder)):
        if holds_dicom(place):
            yield place


def _look(folder: Path) -> _Series:
    """Modality and identifiers from the first DICOM file of a folder that can be read."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    for path in filter(is_dicom, sorted(folder.iterdir())):
        try:
            file = dcmread(path, stop_before_pixels=True, specific_tags=[_NAME, _ID, _MODALITY])
            modality, *identifiers = (str(file.get(keyword, "")).strip() for keyword in (_MODALITY, _ID, _NAME))
        except (InvalidDicomError, OSError, EOFError, ValueError):  # a damaged file: the next one says the same
            continue
        return _Series(folder, {"": "MR", "PT": "PET"}.get(modality, modality), tuple(identifiers))
    return _Series(folder, "MR", ())


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
