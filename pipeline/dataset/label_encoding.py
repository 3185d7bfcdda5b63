"""Label values as people write them, and the indices that arrays inside the pipeline hold.

Inside, 0 is background and i is the i-th structure; where structures overlap, bit i of a mask is structure i. Values
that are ignored become one number that is no index and no mask (`ignore_index`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Structures = Mapping[str, tuple[int, ...]]
_LARGEST_TABLE = 2**16


def index_type(structures: Structures, overlapping: bool) -> np.dtype:
    """The smallest unsigned type that holds the indices and the ignore mark."""
    largest = 2 ** len(structures) if overlapping else len(structures) + 1
    return np.min_scalar_type(largest)


def ignore_index(structures: Structures, overlapping: bool) -> int:
    """What ignored voxels hold inside: 255 for up to 253 exclusive structures.

    Patches hold 64 bits as signed numbers (`patches._SIGNED`), of which the largest unsigned one would become -1.
    """
    return min(int(np.iinfo(index_type(structures, overlapping)).max), int(np.iinfo(np.int64).max))


def labels_to_indices(
    values: NDArray, structures: Structures, ignore_value: int | None = None, overlapping: bool = False
) -> NDArray:
    """Original label values to indices (or bit masks); undeclared values become background."""
    if values.size and values.min() >= 0 and values.max() < _LARGEST_TABLE:
        table = _table(np.arange(int(values.max()) + 1), structures, ignore_value, overlapping)
        return table[values]
    found, inverse = np.unique(values, return_inverse=True)
    return _table(found, structures, ignore_value, overlapping)[inverse].reshape(values.shape)


def _table(found: NDArray, structures: Structures, ignore_value: int | None, overlapping: bool) -> NDArray:
    """The index (or bit mask) of each of the `found` values."""
    table = np.zeros(len(found), dtype=index_type(structures, overlapping))
    for i, region in enumerate(structures.values()):
        member = np.isin(found, region)
        if overlapping:
            table[member] |= table.dtype.type(1 << i)
        else:
            table[member] = i + 1
    if ignore_value is not None:
        table[found == ignore_value] = ignore_index(structures, overlapping)
    return table


def written_values(structures: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The label value that each structure is written as: of a region, the first that no region inside it has.

    For nested regions 1+2+3, 2+3 and 3 these are 1, 2 and 3, so that painting them from the outside in gives the
    original labels.
    """
    values = {}
    for name, own in structures.items():
        inner = {v for other in structures.values() if set(other) < set(own) for v in other}
        values[name] = next((value for value in own if value not in inner), own[0])
    return values
