"""Files of scans grouped into cases, by the channel numbers in their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.io.image_file_names import CHANNEL_SUFFIX, case_id, image_ending, stem

_MOST_CHANNELS = 4
"""More numbers after one name than any usual scan has channels are numbers of cases."""


@dataclass(frozen=True)
class Scan:
    """One case to segment: its files, one a channel or a single one with all, and what is wrong with them together."""

    id: str
    images: tuple[Path, ...]
    fault: str = ""


def group_files(files: Sequence[Path], channels: Sequence[str]) -> list[Scan]:
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
            scans.append(with_channels(case, group, channels))
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


def scan_of_case_folder(case: str, files: list[Path], channels: Sequence[str]) -> Scan:
    """The files of one case's folder as a scan: channels told by their numbers, or else by their names."""
    if len(files) == 1:
        return Scan(case, tuple(files))
    if all(_number(file) is not None for file in files):
        return with_channels(case, files, channels)
    by_name = {name: [file for file in files if name.lower() in file.name.lower()] for name in channels}
    if all(len(found) == 1 for found in by_name.values()):
        return Scan(case, tuple(found[0] for found in by_name.values()))
    what = "; ".join(f"{name}: {', '.join(f.name for f in found) or 'none'}" for name, found in by_name.items())
    return Scan(case, tuple(files), f"one file per channel is needed, named after it or CASE_0000…; found {what}")


def with_channels(case: str, files: Sequence[Path], channels: Sequence[str]) -> Scan:
    """Numbered files as a scan in the model's order; its fault names missing channels and surplus files."""
    numbered = {_number(file): file for file in files}
    missing = [f"{name} (…_{i:04d})" for i, name in enumerate(channels) if i not in numbered]
    surplus = [numbered[i].name for i in sorted(numbered, key=str) if i not in range(len(channels))]
    fault = f"channel missing: {', '.join(missing)}" if missing else ""
    if surplus:
        fault += f"{'; ' if fault else ''}the model has no channel for {', '.join(surplus)}"
    return Scan(case, tuple(numbered[i] for i in range(len(channels)) if i in numbered) or tuple(files), fault)


def scan_of_file(path: Path, channels: Sequence[str]) -> Scan:
    """A single file as a scan, together with the other numbered channels beside it."""
    if _number(path) is None or len(channels) == 1:
        return Scan(case_id(path), (path,))
    case = _without_number(path)
    mine = [file for file in images_in(path.parent) if _number(file) is not None and _without_number(file) == case]
    return with_channels(case, mine, channels)


def _without_number(path: Path) -> str:
    return CHANNEL_SUFFIX.sub("", stem(path))


def _number(path: Path) -> int | None:
    found = CHANNEL_SUFFIX.search(stem(path))
    return int(found.group(1)) if found else None


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted, without hidden ones."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and image_ending(path) and not path.name.startswith(".")
    )
