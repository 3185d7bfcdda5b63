"""Components of each structure held against its reference, from which Dice after any removal follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.inference.postprocessing.binary_masks import bounding_box, structure_mask
from pipeline.inference.postprocessing.connected_components import components_of, voxels_of_each
from pipeline.inference.postprocessing.fill_holes import enclosed
from pipeline.inference.postprocessing.postprocess import voxel_volume_ml
from pipeline.io.grid_difference import GRID_TOLERANCE_MM, grid_difference
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import Plan


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


def measure_case(pair: LabelPair, plan: Plan) -> dict[str, StructureStats]:
    """What the choice needs of one case, by structure; a DataError where the two do not lie on one grid."""
    pred, ref = read_pair(pair)
    valid = not_ignored(ref.array, plan)
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


def read_pair(pair: LabelPair) -> tuple[Volume, Volume]:
    pred, ref = read_label(pair.pred), read_label(pair.ref)
    if difference := grid_difference(ref.grid, pred.grid, pair.grid_tolerance_mm):
        raise DataError(f"{pair.pred} does not lie on the grid of {pair.ref}: {difference}")
    return pred, ref


def not_ignored(reference: NDArray, plan: Plan) -> NDArray[np.bool_]:
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
