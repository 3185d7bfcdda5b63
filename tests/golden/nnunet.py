"""The label maps behind the two `nnunet_2.8.1_*.json`, which nnU-Net 2.8.1 wrote about them (ignore label 3).

`labels` holds what it writes for the labels 1 and 2, `regions` for the regions (1, 2) and (2,).
"""

from __future__ import annotations

import numpy as np

SHAPE = (6, 7, 8)
IGNORE = 3


def _box(value: int, *edges: tuple[int, int]) -> tuple[int, tuple[slice, ...]]:
    return value, tuple(slice(*edge) for edge in edges)


_BODY = _box(1, (1, 5), (1, 5), (1, 6))
_CORE = _box(2, (2, 4), (2, 4), (2, 5))
_MOVED = _box(2, (2, 4), (3, 5), (2, 5))
_UNSURE = _box(3, (0, 2), (0, 7), (0, 8))

MAPS = {  # case: (reference, prediction), boxes drawn one over the other
    "boxes_001": ([_BODY, _CORE], [_BODY, _MOVED]),
    "boxes_002": ([_BODY, _CORE], [_BODY]),
    "boxes_003": ([_BODY], [_BODY, _CORE]),
    "boxes_004": ([_BODY, _CORE, _UNSURE], [_BODY, _CORE]),
    "boxes_005": ([], []),
}


def drawn(boxes: list) -> np.ndarray:
    """A label map of boxes of values."""
    labels = np.zeros(SHAPE, np.uint8)
    for value, place in boxes:
        labels[place] = value
    return labels
