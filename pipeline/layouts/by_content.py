"""Which files are label maps where no name says so: those that hold few values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError
from pipeline.data.formats import read_label, stem
from pipeline.layouts.threads import in_threads

MOST_VALUES = 10
"""Of a label map that is known by nothing else; no scan has so few."""
_THINNED = 4
_LOOKED_AT = 3
_MADE_BY_A_MODEL = re.compile(r"pred\w*|outputs?|out|results?|inferred|inference|backup|old", re.I)


def labels_by_content(files: Sequence[Path], may_be_all: bool = False) -> frozenset[Path]:
    """The label maps among files, none of whose names says that it is one; empty where all are such, or none is.

    It is decided for files that belong together: those of one name in several folders, those of one folder, or those
    whose names end with one word, whichever divides the files best. They are label maps where most of them hold 2 to
    `MOST_VALUES` values, all of them whole and none negative; a few of each such group are looked at first. Predictions
    are none.
    """
    groupings = [_grouped(files, key) for key in (stem, lambda path: str(path.parent), _last_word)]
    groups = [group for grouping in groupings for group in grouping]
    few = _looked_into({path for group in groups for path in _some(group)})
    suspected = [group for group in groups if _mostly([few[path] for path in _some(group)])]
    few |= _looked_into({path for group in suspected for path in group} - few.keys())
    options = [_decided(few, [group for group in grouping if few.keys() >= set(group)]) for grouping in groupings]
    labels, _ = min((option for option in options if option[0]), key=lambda option: option[1], default=(set(), 0))
    if (len(labels) == len(files) and not may_be_all) or any(map(_is_made_by_a_model, labels)):
        return frozenset()
    return frozenset(labels)


def _grouped(files: Sequence[Path], key: Callable[[Path], str]) -> list[list[Path]]:
    """Files of one key; one alone shows nothing that belongs together."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[key(path)].append(path)
    return [group for name, group in groups.items() if name and len(group) > 1]


def _last_word(path: Path) -> str:
    """Empty where a name ends with a number, which counts cases."""
    word = re.split(r"[_\-. ]+", stem(path))[-1]
    return "" if word.isdigit() else word


def _some(group: Sequence[Path]) -> Sequence[Path]:
    return group[:: max(len(group) // _LOOKED_AT, 1)][:_LOOKED_AT]


def _looked_into(paths: Collection[Path]) -> dict[Path, bool | None]:
    ordered = sorted(paths)
    return dict(zip(ordered, in_threads(has_few_values, ordered, "reading"), strict=True))


def _mostly(few: Sequence[bool | None]) -> bool:
    return 2 * few.count(True) > len(few) and None not in few


def _decided(few: Mapping[Path, bool | None], groups: Sequence[Sequence[Path]]) -> tuple[set[Path], int]:
    """The label maps where these files belong together, and how many that were looked at are unlike their group."""
    labels = {path for group in groups if _mostly([few[path] for path in group]) for path in group}
    return labels, sum((path in labels) != (found is True) for path, found in few.items())


def _is_made_by_a_model(path: Path) -> bool:
    return any(_MADE_BY_A_MODEL.fullmatch(word) for word in (stem(path), path.parent.name))


def has_few_values(path: Path) -> bool | None:
    """None where it can be no label map: it is not of whole numbers, has negative ones, or cannot be read."""
    try:
        voxels = read_label(path).array
    except DataError:
        return None
    thin = voxels[(slice(None, None, _THINNED),) * voxels.ndim]
    if thin.min() < 0:
        return None
    if len(np.unique(thin)) > MOST_VALUES:
        return False
    values = np.unique(voxels)
    return 2 <= len(values) <= MOST_VALUES if values[0] >= 0 else None
