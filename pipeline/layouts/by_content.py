"""Which files are label maps where no name says so: those that hold few values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError
from pipeline.data.formats import read_label, stem
from pipeline.layouts.naming import Name
from pipeline.layouts.threads import in_threads

MOST_VALUES = 10
"""Of a label map that is known by nothing else; no scan has so few."""
_THINNED = 4
_MADE_BY_A_MODEL = re.compile(r"pred\w*|outputs?|out|results?|inferred|inference|backup|old", re.I)


def with_labels_by_content(names: Sequence[Name]) -> list[Name]:
    """`names` with those as label maps that hold few values; empty where none does, or all do.

    It is decided for files that belong together: those of one name in all cases' folders, or those of one folder,
    whichever divides the files better. One group is label maps where most of its files hold 2 to `MOST_VALUES` values,
    all of them whole and none negative. Predictions are none.
    """
    paths = [name.path for name in names]
    few = dict(zip(paths, in_threads(_has_few_values, paths, "reading"), strict=True))
    options = [_decided(few, key) for key in (stem, lambda path: str(path.parent))]
    labels, _ = min(options, key=lambda option: option[1])
    if not labels or len(labels) == len(names) or any(map(_is_made_by_a_model, labels)):
        return []
    return [replace(name, is_label=name.path in labels) for name in names]


def _decided(few: dict[Path, bool | None], key: Callable[[Path], str]) -> tuple[set[Path], int]:
    """The label maps where files of one key belong together, and how many files are unlike their group."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in few:
        groups[key(path)].append(path)
    labels, wrong = set[Path](), 0
    for paths in groups.values():
        count = sum(few[path] is True for path in paths)
        if 2 * count > len(paths) and None not in [few[path] for path in paths]:
            labels.update(paths)
            wrong += len(paths) - count
        else:
            wrong += count
    return labels, wrong


def _is_made_by_a_model(path: Path) -> bool:
    return any(_MADE_BY_A_MODEL.fullmatch(word) for word in (stem(path), path.parent.name))


def _has_few_values(path: Path) -> bool | None:
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
