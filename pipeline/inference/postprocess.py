"""What is done to finished label maps: holes filled, stray components removed; and whether that helps.

Nothing is done unless it was found to help in cross-validation: see `helpful`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.plan import Plan
from pipeline.data.volume import Volume
from pipeline.inference.paint import written_values
from pipeline.inference.settings import PostprocessSettings

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def postprocess(labels: Volume, settings: PostprocessSettings | Literal["none", "auto"], plan: Plan) -> Volume:
    """The label map after all steps that `settings` names; the map itself where there are none (or none chosen yet)."""
    if isinstance(settings, str) or settings == PostprocessSettings():
        return labels
    values = written_values(plan.structures)
    voxel_ml = float(np.prod(labels.grid.spacing_mm)) / 1000
    array = labels.array.copy()
    for name in settings.fill_holes:
        fill_holes(array, values[name])
    for name in settings.largest_component:
        keep_components(array, values[name], lambda sizes: sizes == sizes.max())
    for name, least_ml in settings.min_volume_ml.items():
        keep_components(array, values[name], lambda sizes, least=least_ml: sizes * voxel_ml >= least)  # type: ignore[misc]
    return labels.with_array(array)


def fill_holes(labels: NDArray, value: int) -> None:
    """Gives background that a structure encloses wholly (6 neighbours) to it, in place."""
    from scipy.ndimage import binary_fill_holes

    for box in _box(labels == value):
        part = labels[box]
        part[binary_fill_holes(part == value) & (part == 0)] = value


def keep_components(labels: NDArray, value: int, keep: Callable[[NDArray], NDArray]) -> None:
    """Sets to background, in place, the components (26 neighbours) of a structure for whose sizes `keep` is False.

    keep: from the number of voxels of each component to a mask.
    """
    from scipy.ndimage import label

    for box in _box(labels == value):
        part = labels[box]
        components, _ = label(part == value, _ALL_NEIGHBOURS)
        sizes = np.bincount(components.ravel())[1:]
        removed = np.concatenate([[False], ~keep(sizes)])
        part[removed[components]] = 0


def helpful(
    dice: Callable[[PostprocessSettings], Mapping[str, Sequence[float]]], structures: Iterable[str]
) -> tuple[PostprocessSettings, dict[str, str]]:
    """The steps that raise a structure's mean Dice over the cross-validation's cases without lowering another's.

    dice: structure to its Dice per case after given steps. Structures are tried one by one; each decision comes with a
    sentence that says what was seen.
    """
    chosen, reasons = PostprocessSettings(), {}
    best = _means(dice(chosen))
    for step in ("fill_holes", "largest_component"):
        for name in structures:
            tried = chosen.model_copy(update={step: (*getattr(chosen, step), name)})
            found = _means(dice(tried))
            gain = found[name] - best[name]
            helps = gain > 0 and all(found[other] >= best[other] for other in best)
            words = f"mean Dice {best[name]:.4f} without, {found[name]:.4f} with"
            reasons[f"{step}.{name}"] = f"{'kept' if helps else 'left out'}: {words}"
            if helps:
                chosen, best = tried, found
    return chosen, reasons


def _means(dice: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: float(np.nanmean(values)) if len(values) else 0.0 for name, values in dice.items()}


def _box(mask: NDArray) -> list[tuple[slice, ...]]:
    """The smallest box around a mask, in a list that is empty where the mask is."""
    box = []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if len(along) == 0:
            return []
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return [tuple(box)]
