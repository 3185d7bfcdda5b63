"""All metrics of one case: a prediction and a reference label map on one grid, structure by structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics.bounding_boxes import structure_boxes, union_box
from pipeline.evaluation.metrics.confusion_matrix import confusion
from pipeline.evaluation.metrics.empty_policy import DISTANCES, EmptyPolicy, empty_values, which_side_empty
from pipeline.evaluation.metrics.lesion_counts import Connectivity, lesion_counts
from pipeline.evaluation.metrics.overlap import overlap
from pipeline.evaluation.metrics.surface_distances import Element, surface_distances

Row = dict[str, float | int | str | None]

METRICS = (
    "dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_ref_ml", "volume_pred_ml",
    "volume_difference_ml", "volume_difference_percent", "precision", "recall", "hd_mm",
    "lesion_f1", "lesions_ref", "lesions_pred", "lesions_found", "lesions_false",
)  # fmt: skip
"""The columns of `per_case.csv` behind case and structure, in order."""


@dataclass(frozen=True)
class MetricConfig:
    """How metrics are defined. tolerance_mm: of the NSD, per structure; `default_tolerance_mm` for the others."""

    tolerance_mm: Mapping[str, float] = field(default_factory=dict)
    default_tolerance_mm: float = 1.0
    empty_policy: EmptyPolicy = "segpipe"
    surface: Element = "surfel"
    connectivity: Connectivity = 26

    def tolerance_of(self, structure: str) -> float:
        """The tolerance in mm that a structure's NSD is computed with."""
        return self.tolerance_mm.get(structure, self.default_tolerance_mm)


@dataclass(frozen=True)
class CaseScore:
    """rows: every metric by structure. confusion: voxels by reference and predicted part (`metrics.confusion`)."""

    rows: dict[str, Row]
    confusion: NDArray[np.int64]


def score_case(
    pred: NDArray[np.integer],
    ref: NDArray[np.integer],
    structures: Mapping[str, tuple[int, ...]],
    spacing_mm: tuple[float, float, float],
    settings: MetricConfig,
    ignore_value: int | None = None,
) -> CaseScore:
    """Every metric of every structure, for label maps (X, Y, Z) with the original label values.

    A structure may have several values (a region). Voxels that the reference marks with `ignore_value` belong to no
    structure on either side. Only one structure's bounding box is unpacked at a time.
    """
    diagonal_mm = sqrt(sum((n * s) ** 2 for n, s in zip(ref.shape, spacing_mm, strict=True)))
    boxes = structure_boxes((pred, ref), structures)
    rows: dict[str, Row] = {}
    for name, values in structures.items():
        box = boxes[name]
        pred_mask, ref_mask = _mask(pred[box], values), _mask(ref[box], values)
        if ignore_value is not None:
            pred_mask &= ref[box] != ignore_value
        rows[name] = score_masks(pred_mask, ref_mask, spacing_mm, settings, settings.tolerance_of(name), diagonal_mm)
    around = union_box(list(boxes.values()))
    counts = confusion(pred[around], ref[around], structures, ignore_value)
    counts[0, 0] += ref.size - ref[around].size
    return CaseScore(rows, counts)


def score_masks(
    pred: NDArray[np.bool_],
    ref: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    settings: MetricConfig,
    tolerance_mm: float,
    diagonal_mm: float,
) -> Row:
    """Every metric of two boolean masks of one shape; cut to their common bounding box they are as good and faster."""
    counts = overlap(pred, ref)
    voxel_ml = prod(spacing_mm) / 1000
    row: Row = dict.fromkeys(METRICS)
    row["empty"] = kind = which_side_empty(counts.n_pred, counts.n_ref)
    row["volume_ref_ml"], row["volume_pred_ml"] = counts.n_ref * voxel_ml, counts.n_pred * voxel_ml
    row["volume_difference_ml"] = (counts.n_pred - counts.n_ref) * voxel_ml
    lesions = lesion_counts(pred, ref, settings.connectivity)
    row |= {
        "lesions_ref": lesions.n_ref, "lesions_pred": lesions.n_pred,
        "lesions_found": lesions.found, "lesions_false": lesions.false,
    }  # fmt: skip
    if kind is not None:
        return row | empty_values(kind, settings.empty_policy, diagonal_mm)
    row |= {"dice": counts.dice, "iou": counts.iou, "precision": counts.precision, "recall": counts.recall}
    row["volume_difference_percent"] = 100 * (counts.n_pred - counts.n_ref) / counts.n_ref
    row["lesion_f1"] = lesions.f1
    distances = surface_distances(pred, ref, spacing_mm, settings.surface)
    assert distances is not None, "neither mask is empty"  # noqa: S101
    row |= dict(
        zip(DISTANCES, (distances.hausdorff_mm(), distances.hausdorff_mm(95), distances.average_mm()), strict=True)
    )
    row["nsd"] = distances.dice(tolerance_mm)
    return row


def _mask(labels: NDArray[np.integer], values: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask
