"""Which files of plain folders are label maps and which are images: as the user names them, by their names, or by what
they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError
from pipeline.io.image_file_names import image_ending, stem
from pipeline.layouts.dataset_listing import some_of
from pipeline.layouts.folders.file_names import read_name
from pipeline.layouts.folders.label_maps_by_content import Content, content_of, labels_by_content

_PREDICTED = re.compile(r"(?<![A-Za-z])(pred(s|icted|ictions?)?|inferred|inference)(?![A-Za-z])", re.I)


@dataclass(frozen=True)
class FilePatterns:
    """What the user says of a folder's files: patterns of their paths below it; None where names tell.

    A pattern has * and ? (a * also stands for several folders), or is a part of the path; several are parted by commas.
    """

    label_files: str | None = None
    image_files: str | None = None

    def __bool__(self) -> bool:
        return self.label_files is not None or self.image_files is not None


NO_PATTERNS = FilePatterns()


@dataclass(frozen=True)
class Roles:
    """The files in use, which of them are label maps (None: as names tell), and what was assumed."""

    files: list[Path]
    labels: frozenset[Path] | None
    notes: list[str]


def roles_of(folder: Path, files: Sequence[Path], chosen: FilePatterns) -> Roles:
    """A ConfigError where a pattern names no file, or a file is named as both.

    Label maps that are predictions by their names are left out, and said; a DataError where there are no others.
    """
    if chosen:
        return _as_chosen(folder, files, chosen)
    predicted = _predicted(folder, files)
    rest = [path for path in files if path not in predicted]
    named = {path for path in files if _is_label(folder, path)}
    labels = frozenset() if named else labels_by_content(folder, rest)
    notes = _said_of(labels)
    if named and named <= predicted:
        raise DataError(
            f"{folder}: all label maps are predictions by their names ({_some_below(folder, named)}); if they are what "
            "to learn from, say so with --label-files"
        )
    left_out = predicted if (labels or named) and not named.issuperset(rest) else predicted & named
    if left_out:
        shown = _some_below(folder, left_out)
        notes.append(f"{len(left_out)} files are predictions by their names, and left out: {shown}")
    return Roles([path for path in files if path not in left_out], labels or None, notes)


def _predicted(folder: Path, files: Sequence[Path]) -> set[Path]:
    """Files that are predictions by their names; a word that all have is the data set's."""
    found = {path for path in files if _PREDICTED.search(str(path.relative_to(folder)))}
    return set() if len(found) == len(files) else found


def _some_below(folder: Path, paths: Collection[Path]) -> str:
    return some_of(str(path.relative_to(folder)) for path in sorted(paths))


def _is_label(folder: Path, path: Path) -> bool:
    return read_name(folder, path, suffixes=False).is_label


def _as_chosen(folder: Path, files: Sequence[Path], chosen: FilePatterns) -> Roles:
    images = _named(folder, files, "--image-files", chosen.image_files)
    labels = _named(folder, files, "--label-files", chosen.label_files)
    if both := sorted(images & labels):
        raise ConfigError(
            f"{both[0].relative_to(folder)} is named by --image-files and by --label-files; make one of them narrower"
        )
    by_name = {path for path in files if _is_label(folder, path)}
    notes: list[str] = []
    if chosen.label_files is None:
        if images - by_name:  # `pre/flair` and `pre/seg`: the second is the label map of the first
            images, labels = images - by_name, images & by_name
        others = [path for path in files if path not in images]
        labels = labels or by_name - images
        if not labels:
            others = [path for path in others if path not in _predicted(folder, files)]
            labels = set(labels_by_content(folder, others, may_be_all=True))
            notes = _said_of(labels)
    if chosen.image_files is None:
        others = [path for path in files if path not in by_name and path not in labels]
        maps = labels_by_content(folder, others, may_be_all=True)
        images = set(others) - {path for path in maps if content_of(path) is not Content.IMAGE}
    used = [path for path in files if path in images or path in labels]
    if rest := [path for path in files if path not in images and path not in labels]:
        notes.append(f"{len(rest)} files that are neither of what is named are left out: {_some_below(folder, rest)}")
    return Roles(used, frozenset(labels), notes)


def _named(folder: Path, files: Sequence[Path], option: str, patterns: str | None) -> set[Path]:
    found: set[Path] = set()
    for pattern in [] if patterns is None else map(str.strip, patterns.split(",")):
        if not pattern:
            raise ConfigError(f"{option} {patterns!r} has an empty pattern; give a part of the files' paths")
        here = {path for path in files if _fits(folder, path, pattern)}
        if not here:
            there = _some_below(folder, files)
            raise ConfigError(f"{option} {pattern!r} is in no file's path below {folder}; there are {there}")
        found |= here
    return found


def _fits(folder: Path, path: Path, pattern: str) -> bool:
    """`c*/seg` begins with any folder's name, and not in the middle of one; it may leave out the ending.

    [ stands for itself, and capitals count.
    """
    below = f"/{path.relative_to(folder).as_posix()}"
    if not set("*?") & set(pattern):
        return pattern in below
    whole = pattern if pattern.startswith("*") else f"*/{pattern.lstrip('/')}"
    named = below[: -len(image_ending(path))]
    return any(fnmatchcase(told, whole.replace("[", "[[]")) for told in (below, named))


def _said_of(labels: Collection[Path]) -> list[str]:
    """By what the files have in common: name, last word, or folder."""
    if not labels:
        return []
    names = [stem(path) for path in labels]
    endings = [f"*_{re.split(r'[_. -]', name)[-1]}" for name in names]
    folders = [f"{path.parent.name}/" for path in labels]
    kinds = min((names, folders, endings), key=lambda said: len(set(said)))
    shown = some_of(f"{kind} ({count} files)" for kind, count in sorted(Counter(kinds).items()))
    return [
        "no name says which files are label maps; these are taken for such by their voxels (few values, or areas of "
        f"one value): {shown}"
    ]
