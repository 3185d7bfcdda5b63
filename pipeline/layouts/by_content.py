"""Which files are label maps where no name says so: those that hold few values."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError
from pipeline.base.runtime import usable_cores
from pipeline.base.terminal import progress
from pipeline.data.formats import read_label
from pipeline.layouts.naming import Name

MOST_VALUES = 10
"""Of a label map that is known by nothing else; no scan has so few."""
_THINNED = 4


def with_labels_by_content(names: Sequence[Name]) -> list[Name]:
    """`names` with those as label maps whose files hold two to `MOST_VALUES` values, whole and not negative."""
    with ThreadPoolExecutor(usable_cores()) as pool, progress("reading", len(names)) as bar:
        found = []
        for name, few in zip(names, pool.map(_has_few_values, [name.path for name in names]), strict=True):
            found.append(replace(name, is_label=few))
            bar.advance()
    return found


def _has_few_values(path: Path) -> bool:
    """False too for what cannot be read, or is not of whole numbers."""
    try:
        voxels = read_label(path).array
    except DataError:
        return False
    thin = voxels[(slice(None, None, _THINNED),) * voxels.ndim]
    if len(np.unique(thin)) > MOST_VALUES:
        return False
    values = np.unique(voxels)
    return 2 <= len(values) <= MOST_VALUES and values[0] >= 0
