"""Which structure is taken for which: voxels by reference and predicted structure.

Structures that share label values (a tumour and its core) have no row of their own: a voxel would be in two rows. Their
parts have: the core, and the rest of the tumour.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics.bounding_boxes import slabs, slowest_axis

_SLAB_VOXELS = 2**18


def disjoint_label_sets(structures: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Sets of label values that have none in common: the structures themselves where none shares a value.

    Else the values that belong to the same structures make a part: `tumour + core`, or `tumour only`.
    """
    members: dict[int, list[str]] = {}
    for name, values in structures.items():
        for value in values:
            members.setdefault(value, []).append(name)
    groups: dict[tuple[str, ...], list[int]] = {}
    for value, of in members.items():
        groups.setdefault(tuple(of), []).append(value)
    found = {}
    for names, own in groups.items():
        whole = len(names) == 1 and set(own) == set(structures[names[0]])
        found[names[0] if whole else " + ".join(names) if len(names) > 1 else f"{names[0]} only"] = tuple(own)
    return found


def confusion(
    pred: NDArray[np.integer],
    ref: NDArray[np.integer],
    structures: Mapping[str, tuple[int, ...]],
    ignore_value: int | None = None,
) -> NDArray[np.int64]:
    """Counts of voxels, reference by prediction; row and column 0 are the background, then `parts` in order.

    Values of no structure count as background, and so does the prediction where the reference has `ignore_value`.
    """
    groups = disjoint_label_sets(structures).values()
    index_of = np.zeros(max(value for group in groups for value in group) + 2, np.intp)  # last: every larger value
    for index, group in enumerate(groups, start=1):
        index_of[list(group)] = index
    size = len(groups) + 1
    counts = np.zeros(size * size, np.int64)
    for slab in slabs(ref.shape, slowest_axis(ref), _SLAB_VOXELS):
        predicted = index_of.take(pred[slab], mode="clip")
        if ignore_value is not None:
            predicted[ref[slab] == ignore_value] = 0
        joint = index_of.take(ref[slab], mode="clip") * size + predicted
        counts += np.bincount(joint.reshape(-1), minlength=size * size)
    return counts.reshape(size, size)
