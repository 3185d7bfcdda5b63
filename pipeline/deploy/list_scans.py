"""Which scans there are to segment: a file, a folder of files, a folder of case folders, or a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, safe_join
from pipeline.dataset.manifest import read_manifest
from pipeline.deploy.group_scan_files import (
    Scan,
    group_files,
    images_in,
    scan_of_case_folder,
    scan_of_file,
)
from pipeline.inference.case_journal import JOURNAL
from pipeline.io.dicom.dicom_file import holds_dicom
from pipeline.io.dicom.patient_names import may_identify_patient


def list_scans(source: Path, channels: Sequence[str]) -> list[Scan]:
    """The cases in `source`, sorted by id; a case with too few or too many files carries that as its fault.

    Taken are: a file (with its sister channels, where it ends in _0000), files CASE_0000…, one folder per case, 4D
    files, folders with one DICOM series each, a manifest (.json). A series is called by its folder, unless that is
    named by its patient. Raises a DataError where nothing is found.
    """
    if source.suffix == ".json" and source.is_file():
        return _of_manifest(source)
    if source.is_file():
        return [scan_of_file(source, channels)]
    if not source.is_dir():
        raise DataError(f"{source}: there is no such file or folder; give a scan, a folder of scans or a manifest")
    own = _written_here(source)
    scans = group_files([path for path in images_in(source) if path.name not in own], channels)
    series, unreadable = [source] if _holds_dicom(source) else [], list[Scan]()
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            if files := images_in(folder):
                scans.append(scan_of_case_folder(folder.name, files, channels))
            else:
                series += series_below(folder)
        except OSError as error:  # whose name it bears is not known
            case = f"unreadable_{len(unreadable) + 1:03d}"
            unreadable.append(Scan(case, (folder,), f"a folder, or one below it, cannot be read ({error.strerror})"))
    for number, folder in enumerate(series, 1):
        # Below a folder of its own a series is one of several, and folders above it may be named by the patient.
        plain = folder.parent in (source, source.parent) and not may_identify_patient(folder)
        case = folder.name if plain else f"series_{number:03d}"
        scans.append(Scan(case, (folder,)))
    scans += unreadable
    if not scans:
        raise DataError(
            f"{source}: no image in it; files such as CASE.nii.gz or CASE_0000.nii.gz, or a folder per case"
        )
    return sorted(_told_apart(scans), key=lambda scan: scan.id)


def _written_here(folder: Path) -> set[str]:
    """The names of segmentations that an earlier call wrote into the folder of their scans: no scans themselves."""
    journal = folder / JOURNAL
    try:
        return {str(case.get("output")) for case in read_json(journal)["cases"]} if journal.is_file() else set()
    except (DataError, KeyError, TypeError, AttributeError):
        return set()


def series_below(folder: Path) -> list[Path]:
    """The folders with DICOM files, of one series each: this one, or those below it (PATIENT/STUDY/SERIES)."""
    if holds_dicom(folder):
        return [folder]
    inner = (place for place in sorted(folder.iterdir()) if place.is_dir() and not place.is_symlink())
    return [place for below in inner if not below.name.startswith(".") for place in series_below(below)]


def _holds_dicom(folder: Path) -> bool:
    """As `holds_dicom`; a DataError, without the name of a file, where they may not be read."""
    try:
        return holds_dicom(folder)
    except OSError as error:
        raise DataError(f"{folder}: its files cannot be read ({error.strerror}); check their permissions") from None


def _told_apart(scans: Sequence[Scan]) -> list[Scan]:
    """Two scans of one id (p1.nii.gz beside a folder p1) are both refused by name: nobody knows which is meant."""
    times = Counter(scan.id for scan in scans)
    fault = "{} are one case's by their names; rename them"
    return [
        scan
        if times[scan.id] == 1
        else replace(
            scan,
            id=f"{scan.id} ({'/'.join(scan.images[0].parts[-2:])})",
            fault=fault.format(", ".join(str(other.images[0].name) for other in scans if other.id == scan.id)),
        )
        for scan in scans
    ]


def _of_manifest(path: Path) -> list[Scan]:
    manifest = read_manifest(path)
    root = path.parent / (manifest.root or "")
    return [Scan(case.id, tuple(safe_join(root, image) for image in case.images)) for case in manifest.cases]
