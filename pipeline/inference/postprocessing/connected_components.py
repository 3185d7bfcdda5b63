"""Connected components of a structure: their sizes, and the removal of some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.postprocessing.binary_masks import bounding_box, structure_mask

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def keep_components(
    labels: NDArray, values: tuple[int, ...], keep: Callable[[NDArray], NDArray], removed_to: int = 0
) -> None:
    """Sets to `removed_to`, in place, the components (26 neighbours) of a structure for whose sizes `keep` is False.

    keep: from the number of voxels of each component to a mask.
    """
    for box in bounding_box(structure_mask(labels, values)):
        part = labels[box]
        components, sizes = components_of(structure_mask(part, values))
        part[np.concatenate([[False], ~keep(sizes)])[components]] = removed_to


def components_of(mask: NDArray) -> tuple[NDArray, NDArray]:
    """The component (26 neighbours) that each voxel belongs to, from 1 on, and the number of voxels of each."""
    from scipy.ndimage import label

    components, number = label(mask, _ALL_NEIGHBOURS)
    return components, voxels_of_each(components, number)


def voxels_of_each(components: NDArray, number: int, where: NDArray | None = None) -> NDArray[np.int64]:
    """How many voxels (of those in the mask `where`) each of so many components has."""
    sizes = np.zeros(number + 1, np.int64)
    for index, plane in enumerate(components):  # a count over all at once would copy them in eight bytes each
        sizes += np.bincount((plane if where is None else plane[where[index]]).ravel(), minlength=number + 1)
    return sizes[1:]
