"""Tells an intensity image of whole numbers from a label map; scored by mistake, it gives figures that look sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FEW_VALUES, _ENOUGH_VOXELS = 50, 2**20


def value_count_if_image(labels: NDArray[np.integer]) -> int | None:
    """How many values there are where they are too many and too mixed for a label map; None for label maps.

    A parcellation has hundreds of values, but in it most voxels equal their neighbours; an intensity image is the other
    way round. Looks at a few slices of a large volume, and there at what has not the most frequent value.
    """
    if int(labels.max(initial=0)) - int(labels.min(initial=0)) < _FEW_VALUES:
        return None
    seen = labels[..., :: -(-labels.size // _ENOUGH_VOXELS)]
    values, counts = np.unique(seen, return_counts=True)
    if len(values) <= _FEW_VALUES:
        return None
    background = values[counts.argmax()]  # air in a CT is -1024 or so
    both = (seen[1:] != background) & (seen[:-1] != background)
    differing = np.count_nonzero(both & (seen[1:] != seen[:-1]))
    return len(values) if 2 * differing > np.count_nonzero(both) else None
