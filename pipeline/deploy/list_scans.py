"""Which scans there are to segment: a file, a folder of files, a folder of case folders, or a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, safe_join
from pipeline.dataset.manifest import read_manifest
from pipeline.inference.case_journal import JOURNAL
from pipeline.io.dicom.dicom_file import holds_dicom
from pipeline.io.dicom.patient_names import identifies_patient
from pipeline.io.image_file_names import CHANNEL_SUFFIX, case_id, image_ending, stem

_MOST_CHANNELS = 4
"""More numbers after one name than any usual scan has channels are numbers of cases."""


@dataclass(frozen=True)
class Scan:
    """One case to segment: its files, one a channel or a single one with all, and what is wrong with them together."""

    id: str
    images: tuple[Path, ...]
    fault: str = ""


def list_scans(source: Path, channels: Sequence[str]) -> list[Scan]:
    """The cases in `source`, sorted by id; a case with too few or too many files carries that as its fault.

    Taken are: a file (with its sister channels, where it ends in _0000), files CASE_0000…, one folder per case, 4D
    files, folders with one DICOM series each, a manifest (.json). A series is called by its folder, unless that is
    named by its patient. Raises a DataError where nothing is found.
    """
    if source.suffix == ".json" and source.is_file():
        return _of_manifest(source)
    if source.is_file():
        return [_of_file(source, channels)]
    if not source.is_dir():
        raise DataError(f"{source}: there is no such file or folder; give a scan, a folder of scans or a manifest")
    own = _written_here(source)
    scans = _grouped([path for path in images_in(source) if path.name not in own], channels)
    series, unreadable = [source] if _holds_dicom(source) else [], list[Scan]()
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            if files := images_in(folder):
                scans.append(_of_case_folder(folder.name, files, channels))
            else:
                series += series_below(folder)
        except OSError as error:  # whose name it bears is not known
            case = f"unreadable_{len(unreadable) + 1:03d}"
            unreadable.append(Scan(case, (folder,), f"a folder, or one below it, cannot be read ({error.strerror})"))
    for number, folder in enumerate(series, 1):
        # Below a folder of its own a series is one of several, and folders above it may be named by the patient.
        plain = folder.parent in (source, source.parent) and not _names_somebody(folder)
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


def _names_somebody(folder: Path) -> bool:
    """True too where its files do not say whose they are; what is wrong with them is said when they are read."""
    try:
        return identifies_patient(folder)
    except (DataError, OSError):
        return True


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


def _of_file(path: Path, channels: Sequence[str]) -> Scan:
    if _number(path) is None or len(channels) == 1:
        return Scan(case_id(path), (path,))
    case = _without_number(path)
    mine = [file for file in images_in(path.parent) if _number(file) is not None and _without_number(file) == case]
    return _with_channels(case, mine, channels)


def _grouped(files: Sequence[Path], channels: Sequence[str]) -> list[Scan]:
    """Files as cases: those of one name but for the channel's number, or (see `_count_cases`) each its own."""
    groups: dict[str, list[Path]] = {}
    counted = len(channels) == 1 and _count_cases(files)
    for file in files:
        groups.setdefault(stem(file) if counted else _without_number(file), []).append(file)
    scans = []
    for case, group in groups.items():
        if len(group) > 1 and all(_number(file) is None for file in group):
            names = ", ".join(file.name for file in group)
            scans += [Scan(file.name, (file,), f"{names} are one case's by their names; rename them") for file in group]
        elif len(channels) > 1 and _number(group[0]) is not None:
            scans.append(_with_channels(case, group, channels))
        else:
            scans.append(Scan(case, tuple(group)))
    return scans


def _count_cases(files: Sequence[Path]) -> bool:
    """Whether numbers such as `_0007` count cases and not channels: no case would have just 0 to n of them, n small."""
    numbers: dict[str, list[int]] = {}
    for file in files:
        if (number := _number(file)) is not None:
            numbers.setdefault(_without_number(file), []).append(number)
    like_channels = [found for found in numbers.values() if sorted(found) == list(range(len(found)))]
    return bool(numbers) and all(len(found) > _MOST_CHANNELS for found in like_channels)


def _of_case_folder(case: str, files: list[Path], channels: Sequence[str]) -> Scan:
    if len(files) == 1:
        return Scan(case, tuple(files))
    if all(_number(file) is not None for file in files):
        return _with_channels(case, files, channels)
    by_name = {name: [file for file in files if name.lower() in file.name.lower()] for name in channels}
    if all(len(found) == 1 for found in by_name.values()):
        return Scan(case, tuple(found[0] for found in by_name.values()))
    what = "; ".join(f"{name}: {', '.join(f.name for f in found) or 'none'}" for name, found in by_name.items())
    return Scan(case, tuple(files), f"one file per channel is needed, named after it or CASE_0000…; found {what}")


def _with_channels(case: str, files: Sequence[Path], channels: Sequence[str]) -> Scan:
    numbered = {_number(file): file for file in files}
    missing = [f"{name} (…_{i:04d})" for i, name in enumerate(channels) if i not in numbered]
    surplus = [numbered[i].name for i in sorted(numbered, key=str) if i not in range(len(channels))]
    fault = f"channel missing: {', '.join(missing)}" if missing else ""
    if surplus:
        fault += f"{'; ' if fault else ''}the model has no channel for {', '.join(surplus)}"
    return Scan(case, tuple(numbered[i] for i in range(len(channels)) if i in numbered) or tuple(files), fault)


def _without_number(path: Path) -> str:
    return CHANNEL_SUFFIX.sub("", stem(path))


def _number(path: Path) -> int | None:
    found = CHANNEL_SUFFIX.search(stem(path))
    return int(found.group(1)) if found else None


def images_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_file() and image_ending(path) and not path.name.startswith(".")
    )
