"""Which files are label maps where no name says so: those that hold few values, or areas of one value."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import stem
from pipeline.io.read_label import read_label
from pipeline.parallel.threads import in_threads

MOST_VALUES = 10
"""Of a label map that is known by nothing else; no scan has so few."""
_MOST_STRUCTURES, _ALIKE = 255, 0.5
"""A map of more values than `MOST_VALUES` is known by voxels that are as the next one along x: of those that are not
background more than this share. Of a scan in 8 bits it is a tenth or a fifth."""
_OF_IMAGES = {"colour", "label-4d", "label-not-integer"}
"""Codes of faults that a file has only as a label map."""
_THINNED = 4
_LOOKED_AT, _GROUPS_LOOKED_AT = 3, 10
_MADE_BY_A_MODEL = re.compile(r"pred(s|icted|ictions?)?|outputs?|out|results?|inferred|inference|backup|old", re.I)


Item = TypeVar("Item")


class Content(Enum):
    """What a file's voxels may be."""

    LABELS = "labels"
    IMAGE = "image"
    UNDECIDED = "empty, or not to be read"


def labels_by_content(folder: Path, files: Sequence[Path], may_be_all: bool = False) -> frozenset[Path]:
    """The label maps among files, none of whose names says that it is one; empty where all are such, or none is.

    It is decided for files that belong together: those of one name in several folders, those of one folder, or those
    whose names end with one word, whichever divides the files best. They are label maps where most of them look so; a
    few of each such group are looked at first. None are where most of them are a model's by their names.
    """
    groupings = _groupings(files)
    first = [group for grouping in groupings for group in _some(grouping, _GROUPS_LOOKED_AT)]
    seen = _looked_into({path for group in first for path in _some(group)})
    if not any(_may_be([seen[path] for path in _some(group)]) for group in first):
        return frozenset()
    groups = [group for grouping in groupings for group in grouping]
    seen |= _looked_into({path for group in groups for path in _some(group)} - seen.keys())
    suspected = [group for group in groups if _may_be([seen[path] for path in _some(group)])]
    seen |= _looked_into({path for group in suspected for path in group} - seen.keys())
    options = [_decided(seen, [group for group in grouping if seen.keys() >= set(group)]) for grouping in groupings]
    labels, _ = min((option for option in options if option[0]), key=lambda option: option[1], default=(set(), 0))
    predicted = sum(_is_made_by_a_model(folder, path) for path in labels)
    of_all = sum(_is_made_by_a_model(folder, path) for path in files) == len(files)
    if (len(labels) == len(files) and not may_be_all) or (2 * predicted > len(labels) and not of_all):
        return frozenset()
    return frozenset(labels)


def _groupings(files: Sequence[Path]) -> list[list[list[Path]]]:
    """One file alone shows nothing that belongs together, unless it lies beside what other folders hold too."""
    folders_of: dict[str, set[Path]] = defaultdict(set)
    for path in files:
        folders_of[stem(path)].add(path.parent)
    recurring = {path for path in files if len(folders_of[stem(path)]) > 1}
    beside = {path.parent for path in recurring}
    return [
        [group for group in _grouped(files, stem) if len(group) > 1 or group[0].parent in beside],
        [group for group in _grouped(files, lambda path: path.parent.name) if len(group) > 1 or group[0] in recurring],
        [group for group in _grouped(files, _last_word) if len(group) > 1],
    ]


def _grouped(files: Sequence[Path], key: Callable[[Path], str]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[key(path)].append(path)
    return [group for name, group in groups.items() if name]


def _last_word(path: Path) -> str:
    """Empty where a name ends with a number, which counts cases."""
    word = re.split(r"[_\-. ]+", stem(path))[-1]
    return "" if word.isdigit() else word


def _some(items: Sequence[Item], count: int = _LOOKED_AT) -> Sequence[Item]:
    return items[:: max(len(items) // count, 1)][:count]


def _looked_into(paths: Collection[Path]) -> dict[Path, Content]:
    ordered = sorted(paths)
    return dict(zip(ordered, in_threads(content_of, ordered, "reading"), strict=True))


def _may_be(seen: Sequence[Content]) -> bool:
    return _mostly(seen) or all(content is Content.UNDECIDED for content in seen)


def _mostly(seen: Sequence[Content]) -> bool:
    decided = [content for content in seen if content is not Content.UNDECIDED]
    return 2 * decided.count(Content.LABELS) > len(decided)


def _decided(seen: Mapping[Path, Content], groups: Sequence[Sequence[Path]]) -> tuple[set[Path], int]:
    """The label maps where these files belong together, and how many that were looked at are unlike their group."""
    labels = {path for group in groups if _mostly([seen[path] for path in group]) for path in group}
    unlike = {True: Content.IMAGE, False: Content.LABELS}
    return labels, sum(content is unlike[path in labels] for path, content in seen.items())


def _is_made_by_a_model(folder: Path, path: Path) -> bool:
    return any(_MADE_BY_A_MODEL.fullmatch(word) for word in re.split(r"[_\-. /]+", str(path.relative_to(folder))))


def content_of(path: Path) -> Content:
    """Label maps hold few values, or more in areas of one value; all of them whole, and none negative."""
    try:
        voxels = read_label(path).array
    except DataError as fault:
        return Content.IMAGE if isinstance(fault, ImageFileError) and fault.code in _OF_IMAGES else Content.UNDECIDED
    if voxels.min() < 0:
        return Content.IMAGE
    thin = np.unique(voxels[(slice(None, None, _THINNED),) * voxels.ndim])
    values = thin if len(thin) > _MOST_STRUCTURES else np.unique(voxels)
    if len(values) == 1:
        return Content.IMAGE if values[0] else Content.UNDECIDED
    few = len(values) <= MOST_VALUES or (len(values) <= _MOST_STRUCTURES and _in_areas(voxels))
    return Content.LABELS if few else Content.IMAGE


def _in_areas(voxels: NDArray) -> bool:
    here, there = voxels[:-1], voxels[1:]
    inside = (here != 0) | (there != 0)
    return bool(inside.any()) and float(np.mean((here == there)[inside])) > _ALIKE


def has_several_values(path: Path) -> bool:
    """False too for a file that cannot be read: what is wrong with it is said where masks are merged."""
    try:
        label = read_label(path).array
    except DataError:
        return False
    return len(np.unique(label[label != 0])) > 1
