"""`infer.postprocess: auto`: which steps help, seen on the predictions of cross-validation and nowhere else.

Every case is read once: what a structure's components have in common with the reference tells the Dice after any
removal, so that all steps are weighed without being done. Then the chosen ones are done together and measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.inference.inference_config import PostprocessConfig
from pipeline.inference.postprocessing.postprocess import (
    bounding_box,
    components_of,
    enclosed,
    postprocess,
    structure_mask,
    voxel_volume_ml,
    voxels_of_each,
)
from pipeline.io.grid_difference import GRID_TOLERANCE_MM, grid_difference
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import Plan

SMALLEST_GAIN = 1e-4
"""A rise of the mean Dice below this is no help, whatever its sign."""
FEWEST_CASES = 3
"""What helps on fewer validation cases may be their chance."""
VOLUMES_ML = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Least volumes that are tried; few and far apart, so that none fits the validation cases by chance."""


@dataclass(frozen=True)
class LabelPair:
    """A prediction of cross-validation and its reference on disk."""

    id: str
    pred: Path
    ref: Path
    grid_tolerance_mm: float = GRID_TOLERANCE_MM


@dataclass(frozen=True)
class ComponentStats:
    """A structure's components in one prediction.

    sizes: their voxels. counted: those of them that the reference does not ignore. hits: those that it has too.
    """

    sizes: NDArray[np.int64]
    counted: NDArray[np.int64]
    hits: NDArray[np.int64]
    reference: int
    """Voxels of the structure in the reference."""
    voxel_ml: float

    def dice(self, keep: NDArray[np.bool_]) -> float:
        """Dice of the components that are kept; nothing on both sides is right, so it counts as 1."""
        both, total = 2 * int(self.hits[keep].sum()), int(self.counted[keep].sum()) + self.reference
        return both / total if total else 1.0

    def after(self, removal: float | None) -> float:
        """Dice after a removal: of none (None), of all but the largest (inf), of components under so many ml."""
        if removal is None or not len(self.sizes):
            return self.dice(np.ones(len(self.sizes), bool))
        if removal == np.inf:
            return self.dice(self.sizes == self.sizes.max())
        return self.dice(self.sizes * self.voxel_ml >= removal)


@dataclass(frozen=True)
class StructureStats:
    """A structure in one case: its pieces as predicted, and after its holes were filled."""

    plain: ComponentStats
    filled: ComponentStats


@dataclass(frozen=True)
class SelectedSteps:
    """The steps to do, and for each structure what was seen, as JSON."""

    settings: PostprocessConfig
    structures: dict[str, dict[str, Any]]


def measure_case(pair: LabelPair, plan: Plan) -> dict[str, StructureStats]:
    """What the choice needs of one case, by structure; a DataError where the two do not lie on one grid."""
    pred, ref = _read(pair)
    valid = _valid(ref.array, plan)
    voxel_ml = voxel_volume_ml(pred)
    seen = {}
    for name, values in plan.structures.items():
        mask, reference = structure_mask(pred.array, values), structure_mask(ref.array, values) & valid
        filled = mask | (enclosed(mask) & (pred.array == 0))
        plain = _pieces(mask, reference, valid, voxel_ml)
        seen[name] = StructureStats(
            plain, plain if (filled == mask).all() else _pieces(filled, reference, valid, voxel_ml)
        )
    return seen


def dice_after(pair: LabelPair, settings: PostprocessConfig, plan: Plan) -> dict[str, float]:
    """Dice of each structure once all steps were done to a prediction; nothing on both sides counts as 1."""
    pred, ref = _read(pair)
    valid = _valid(ref.array, plan)
    done = postprocess(pred, settings, plan).array
    return {name: _dice(done, ref.array, values, valid) for name, values in plan.structures.items()}


def select_steps(seen: Sequence[Mapping[str, StructureStats]]) -> SelectedSteps:
    """For each structure the steps that raise its mean Dice over the cases and help more of them than they harm.

    None where there are fewer than FEWEST_CASES. Holes are tried first; then, with or without them filled, the largest
    component and each of VOLUMES_ML.
    """
    fill, largest, volumes = list[str](), list[str](), dict[str, float]()
    structures: dict[str, dict[str, Any]] = {}
    for name in seen[0] if seen else ():
        plain, filled = [case[name].plain for case in seen], [case[name].filled for case in seen]
        before = _after(plain, None)
        fills = _helps(before, _after(filled, None))
        pieces = filled if fills else plain
        base = _after(pieces, None)
        removals = {removal: _after(pieces, removal) for removal in (*VOLUMES_ML, np.inf)}
        helping = {removal: dice for removal, dice in removals.items() if _helps(base, dice)}
        best = max(helping, key=lambda removal: helping[removal].mean(), default=None)
        fill += [name] if fills else []
        largest += [name] if best == np.inf else []
        volumes |= {name: best} if best is not None and best != np.inf else {}
        structures[name] = {
            "dice": float(before.mean()),
            "tried": {
                "fill_holes": float(_after(filled, None).mean()),
                "largest_component": float(removals[np.inf].mean()),
                "min_volume_ml": {f"{volume:g}": float(removals[volume].mean()) for volume in VOLUMES_ML},
            },
        }
    settings = PostprocessConfig(fill_holes=tuple(fill), largest_component=tuple(largest), min_volume_ml=volumes)
    return SelectedSteps(settings, structures)


def verify_selection(
    choice: SelectedSteps, before: Sequence[Mapping[str, StructureStats]], after: Sequence[Mapping[str, float]]
) -> SelectedSteps:
    """The choice with what it gained when done together; no steps at all where a structure lost by others' steps."""
    structures, harmed = {}, list[str]()
    for name, entry in choice.structures.items():
        was = _after([case[name].plain for case in before], None)
        found = np.array([case[name] for case in after])
        harmed += [name] if found.mean() < was.mean() else []
        counts = {"better": int((found > was).sum()), "worse": int((found < was).sum())}
        gain = {"dice_after": float(found.mean()), "gain": float((found - was).mean())}
        structures[name] = {**entry, **gain, **counts}
    if not harmed:
        return SelectedSteps(choice.settings, structures)
    unchanged = {name: entry | {"harmed_by_others": name in harmed} for name, entry in structures.items()}
    return SelectedSteps(PostprocessConfig(), unchanged)


def describe_steps(settings: PostprocessConfig, name: str) -> list[str]:
    """The steps that are done to one structure, in words."""
    words = ["holes filled"] if name in settings.fill_holes else []
    words += ["largest component kept"] if name in settings.largest_component else []
    least = settings.min_volume_ml.get(name)
    return words + ([] if least is None else [f"components under {least:g} ml removed"])


def _after(pieces: Sequence[ComponentStats], removal: float | None) -> NDArray[np.float64]:
    return np.array([piece.after(removal) for piece in pieces])


def _helps(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    gain = after - before
    return bool(len(gain) >= FEWEST_CASES and gain.mean() >= SMALLEST_GAIN and (gain > 0).sum() > (gain < 0).sum())


def _read(pair: LabelPair) -> tuple[Volume, Volume]:
    pred, ref = read_label(pair.pred), read_label(pair.ref)
    if difference := grid_difference(ref.grid, pred.grid, pair.grid_tolerance_mm):
        raise DataError(f"{pair.pred} does not lie on the grid of {pair.ref}: {difference}")
    return pred, ref


def _valid(reference: NDArray, plan: Plan) -> NDArray[np.bool_]:
    return np.ones(reference.shape, bool) if plan.ignore_value is None else reference != plan.ignore_value


def _pieces(mask: NDArray, reference: NDArray, valid: NDArray, voxel_ml: float) -> ComponentStats:
    """Ignored voxels hold components together, as they do when a step is done, but count for nothing."""
    total = int(reference.sum())
    for box in bounding_box(mask):
        components, sizes = components_of(mask[box])
        counted = voxels_of_each(components, len(sizes), valid[box])
        hits = voxels_of_each(components, len(sizes), reference[box])
        return ComponentStats(sizes, counted, hits, total, voxel_ml)
    nothing = np.zeros(0, np.int64)
    return ComponentStats(nothing, nothing, nothing, total, voxel_ml)


def _dice(pred: NDArray, ref: NDArray, values: tuple[int, ...], valid: NDArray) -> float:
    mask, reference = structure_mask(pred, values) & valid, structure_mask(ref, values) & valid
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else 1.0
