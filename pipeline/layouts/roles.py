"""Which files of plain folders are label maps and which are images: as the user names them, by their names, or by what
they hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.layouts.by_content import MOST_VALUES, labels_by_content
from pipeline.layouts.found import some_of, stem
from pipeline.layouts.naming import read_name


@dataclass(frozen=True)
class Chosen:
    """What the user says of a folder's files: patterns of their paths below it; None where names tell.

    A pattern has * and ? (a * also stands for several folders), or is a part of the path; several are parted by commas.
    """

    label_files: str | None = None
    image_files: str | None = None

    def __bool__(self) -> bool:
        return bool(self.label_files or self.image_files)


NOTHING_CHOSEN = Chosen()


@dataclass(frozen=True)
class Roles:
    """The files in use, which of them are label maps (None: as names tell), and what was assumed."""

    files: list[Path]
    labels: frozenset[Path] | None
    notes: list[str]


def roles_of(folder: Path, files: Sequence[Path], chosen: Chosen) -> Roles:
    """A ConfigError where a pattern names no file, or a file is named as both."""
    if chosen:
        return _as_chosen(folder, files, chosen)
    if any(read_name(folder, path, suffixes=False).is_label for path in files):
        return Roles(list(files), None, [])
    labels = labels_by_content(files)
    return Roles(list(files), labels or None, _said_of(labels))


def _as_chosen(folder: Path, files: Sequence[Path], chosen: Chosen) -> Roles:
    images = _named(folder, files, "--image-files", chosen.image_files)
    labels = _named(folder, files, "--label-files", chosen.label_files)
    if both := sorted(images & labels):
        raise ConfigError(
            f"{both[0].relative_to(folder)} is named by --image-files and by --label-files; make one of them narrower"
        )
    notes: list[str] = []
    if chosen.label_files is None:
        others = [path for path in files if path not in images]
        labels = {path for path in others if read_name(folder, path, suffixes=False).is_label}
        if not labels:
            labels = set(labels_by_content(others, may_be_all=True))
            notes = _said_of(labels)
    if chosen.image_files is None:
        images = {path for path in files if not read_name(folder, path, suffixes=False).is_label} - labels
    used = [path for path in files if path in images or path in labels]
    if rest := [str(path.relative_to(folder)) for path in files if path not in images and path not in labels]:
        notes.append(f"{len(rest)} files that are neither of what is named are left out: {some_of(rest)}")
    return Roles(used, frozenset(labels), notes)


def _named(folder: Path, files: Sequence[Path], option: str, patterns: str | None) -> set[Path]:
    found: set[Path] = set()
    for pattern in (patterns or "").split(","):
        if not (pattern := pattern.strip()):
            continue
        whole = pattern if re.search(r"[*?\[]", pattern) else f"*{pattern}*"
        here = {path for path in files if fnmatchcase(f"/{path.relative_to(folder).as_posix()}", _anywhere(whole))}
        if not here:
            shown = some_of(str(path.relative_to(folder)) for path in files)
            raise ConfigError(f"{option} {pattern!r} is in no file's path below {folder}; there are {shown}")
        found |= here
    return found


def _anywhere(pattern: str) -> str:
    """`c*/seg.nii.gz` begins with any folder's name, and not in the middle of one."""
    return pattern if pattern.startswith("*") else f"*/{pattern.lstrip('/')}"


def _said_of(labels: Collection[Path]) -> list[str]:
    if not labels:
        return []
    counts: dict[str, int] = {}
    names = [stem(path) for path in labels]
    kinds = names if len(set(names)) < len(names) else [f"{path.parent.name}/" for path in labels]
    for kind in sorted(kinds):
        counts[kind] = counts.get(kind, 0) + 1
    shown = some_of(f"{kind} ({count} files)" for kind, count in counts.items())
    return [
        f"no name says which files are label maps; these are taken for such, since they hold at most {MOST_VALUES} "
        f"values: {shown}"
    ]
