"""What is done to finished label maps: holes filled, stray components removed.

Nothing is done unless it is asked for, or was found to help in cross-validation: see `select_postprocessing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.inference.inference_config import PostprocessConfig
from pipeline.inference.logits_to_labels import written_values
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import Plan

Structures = Mapping[str, tuple[int, ...]]

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)

BYTES_A_VOXEL = 6
"""Beside the label map and its copy, where one structure fills the volume: its mask (1), the components (4) and which
of them go (1), or the masks (1 each) that filling holes works with."""


def postprocess(labels: Volume, settings: PostprocessConfig | Literal["none", "auto"], plan: Plan) -> Volume:
    """The label map after all steps that `settings` names; the map itself where there are none (or none chosen yet).

    A structure's mask is every voxel with one of its label values, so that a region keeps what lies inside it. What is
    removed becomes the region around the structure where the plan nests it in one, background elsewhere.
    """
    if isinstance(settings, str) or settings == PostprocessConfig():
        return labels
    structures, voxel_ml = plan.structures, voxel_volume_ml(labels)
    written = written_values(structures)
    array = labels.array.copy()
    for name in settings.fill_holes:
        fill_holes(array, structures[name], written[name])
    for name in settings.largest_component:
        keep_components(array, structures[name], lambda sizes: sizes == sizes.max(), around(name, structures))
    for name, least_ml in settings.min_volume_ml.items():
        keep_components(
            array,
            structures[name],
            lambda sizes, least=least_ml: sizes * voxel_ml >= least,  # type: ignore[misc]
            around(name, structures),
        )
    return labels.with_array(array)


def check_structures(settings: PostprocessConfig | Literal["none", "auto"], structures: Structures) -> None:
    """ConfigError where a step names a structure that the data set does not have."""
    if isinstance(settings, str):
        return
    for step, names in settings:
        for name in names:
            if name not in structures:
                hint = did_you_mean(name, list(structures))
                raise ConfigError(f"infer.postprocess.{step}: there is no structure {name!r}; {hint}")


def voxel_volume_ml(volume: Volume) -> float:
    """The volume of one voxel."""
    return float(np.prod(volume.grid.spacing_mm)) / 1000


def around(name: str, structures: Structures) -> int:
    """The label value of the smallest region that a structure is nested in; 0 where it is in none."""
    own = set(structures[name])
    outer = {other: values for other, values in structures.items() if own < set(values)}
    return written_values(structures)[min(outer, key=lambda other: len(outer[other]))] if outer else 0


def fill_holes(labels: NDArray, values: tuple[int, ...], written: int) -> None:
    """Gives background that a structure encloses wholly (6 neighbours) the value `written`, in place."""
    inside = enclosed(structure_mask(labels, values))
    inside &= labels == 0
    labels[inside] = written


def structure_mask(labels: NDArray, values: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of the values; a byte a voxel and another, where isin takes eight more."""
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def enclosed(mask: NDArray) -> NDArray[np.bool_]:
    """A mask and the holes in it, which no path over faces leads out of."""
    from scipy.ndimage import binary_fill_holes

    filled = mask.copy()
    for box in bounding_box(mask):
        filled[box] = binary_fill_holes(mask[box])
    return filled


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


def bounding_box(mask: NDArray) -> list[tuple[slice, ...]]:
    """The smallest box around a mask, in a list that is empty where the mask is."""
    box = []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if len(along) == 0:
            return []
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return [tuple(box)]
