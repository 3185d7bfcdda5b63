"""Which scans there are to segment: a file, a folder of files, a folder of case folders, or a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import inside
from pipeline.data.dicom_series import holds_dicom, names_somebody
from pipeline.data.formats import case_id, image_ending
from pipeline.data.manifest import read_manifest

_CHANNEL = re.compile(r"_(\d{4})$")


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
    scans = {scan.id: scan for scan in _grouped(_images_in(source), channels)}
    series = [source] if holds_dicom(source) else []
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if files := _images_in(folder):
            scans[folder.name] = _of_case_folder(folder.name, files, channels)
        elif holds_dicom(folder):
            series.append(folder)
    for number, folder in enumerate(series, 1):
        case = f"series_{number:03d}" if names_somebody(folder) else folder.name
        scans[case] = Scan(case, (folder,))
    if not scans:
        raise DataError(
            f"{source}: no image in it; files such as CASE.nii.gz or CASE_0000.nii.gz, or a folder per case"
        )
    return [scans[case] for case in sorted(scans)]


def _of_manifest(path: Path) -> list[Scan]:
    manifest = read_manifest(path)
    root = path.parent / (manifest.root or "")
    return [Scan(case.id, tuple(inside(root, image) for image in case.images)) for case in manifest.cases]


def _of_file(path: Path, channels: Sequence[str]) -> Scan:
    if _number(path) is None or len(channels) == 1:
        return Scan(case_id(path), (path,))
    sisters = [file for file in _images_in(path.parent) if case_id(file) == case_id(path) and _number(file) is not None]
    return _with_channels(case_id(path), sisters, channels)


def _grouped(files: Iterable[Path], channels: Sequence[str]) -> list[Scan]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(case_id(file), []).append(file)
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


def _number(path: Path) -> int | None:
    found = _CHANNEL.search(path.name[: len(path.name) - len(image_ending(path))])
    return int(found.group(1)) if found else None


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_file() and image_ending(path) and not path.name.startswith(".")
    )
