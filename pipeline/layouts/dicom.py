"""Folders of DICOM series: images without labels, one case per series, under ids that identify nobody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.data.cases import Channel
from pipeline.layouts.found import Found, FoundCase, modality_of

_PATIENT_NAME, _PATIENT_ID, _MODALITY = "0010|0010", "0010|0020", "0008|0060"
_UID = re.compile(r"\d+(\.\d+){4,}")


@dataclass(frozen=True)
class _Series:
    """A folder that holds one series, and what its first file says. `patient` stays in memory: it is never written."""

    folder: Path
    modality: str
    patient: str
    name: str


def has_series(folder: Path) -> bool:
    """True where some file below the folder is DICOM."""
    return next(_series_folders(folder), None) is not None


def read(folder: Path) -> Found:
    """Each folder with one DICOM series becomes a testing case: `series_001`, of subject `patient_001`, ...

    Numbers follow the sorted folders; no identifier, name or date of the files enters the result, and where folders
    themselves are named by one, `paths_identify` is set. Folders with mixed series are listed as problems. Raises a
    DataError where there is no series.
    """
    problems: list[Problem] = []
    series = [found for place in _series_folders(folder) if (found := _series(folder, place, problems)) is not None]
    if not series:
        raise DataError(f"{folder}: no folder in it holds exactly one DICOM series")
    modality, count = Counter(one.modality for one in series).most_common(1)[0]
    notes = ["ids count series and patients; which is which stands only in the folders' order"]
    if count < len(series):
        others = sorted({one.modality for one in series} - {modality})
        notes.append(f"series of {', '.join(others)} are among those of {modality}; take them out or keep them apart")
    patients = {
        patient: f"patient_{i:03d}" for i, patient in enumerate(dict.fromkeys(one.patient for one in series), 1)
    }
    return Found(
        layout="dicom",
        folder=folder,
        name=folder.name,
        channels=(Channel(name=modality, modality=modality_of(modality)),),
        paths_identify=any(_identifies(one.folder.relative_to(folder), one) for one in series),
        cases=tuple(
            FoundCase(id=f"series_{i:03d}", images=(one.folder,), split="testing", subject=patients[one.patient])
            for i, one in enumerate(series, 1)
        ),
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _series_folders(folder: Path) -> Iterator[Path]:
    """Folders (this one too) that hold DICOM files, in order."""
    for place in sorted([folder, *(path for path in folder.rglob("*") if path.is_dir())]):
        files = sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
        if any(_is_dicom(path) for path in files[:8]):
            yield place


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _series(root: Path, folder: Path, problems: list[Problem]) -> _Series | None:
    import SimpleITK as sitk

    where = str(folder.relative_to(root))
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(ids) != 1:
        problems.append(Problem(where, f"holds {len(ids)} DICOM series; give each its own folder (left out)"))
        return None
    first = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])[0]
    reader = sitk.ImageFileReader()
    reader.SetFileName(first)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        problems.append(Problem(where, "its first DICOM file cannot be read (left out)"))
        return None
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    name = tags.get(_PATIENT_NAME, "")
    patient = tags.get(_PATIENT_ID, "") or name or where
    return _Series(folder, {"PT": "PET"}.get(tags.get(_MODALITY, ""), tags.get(_MODALITY, "MR")), patient, name)


def _identifies(path: Path, series: _Series) -> bool:
    """True where a folder's name carries a UID, or the name or id of the patient."""
    text = re.sub(r"[^a-z0-9]", "", str(path).lower())
    words = [re.sub(r"[^a-z0-9]", "", word.lower()) for word in (series.patient, *re.split(r"[\^ ,]+", series.name))]
    return bool(_UID.search(str(path))) or any(word in text for word in words if len(word) >= 3)
