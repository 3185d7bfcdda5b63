"""Holds the golden cases: numbers from other libraries' test suites. There is no switch that rewrites them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.evaluation.metrics.overlap import overlap
from pipeline.evaluation.metrics.score_case import MetricConfig, score_masks
from pipeline.evaluation.metrics.summary import ScoredCase, summarise
from pipeline.evaluation.metrics.surface_distances import DirectedDistances, SurfaceDistances, surface_distances

CASES = yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_golden_case(case: dict[str, Any]) -> None:
    found = FUNCTIONS[case["function"]](**case["arguments"])
    expected = np.array(case["expected"], dtype=float)  # null becomes NaN: undefined
    np.testing.assert_allclose(
        np.array(found, dtype=float), expected, rtol=case.get("rtol", 2e-6), atol=case.get("atol", 1e-9)
    )


def test_every_case_has_its_own_id() -> None:
    ids = [case["id"] for case in CASES]
    assert len(set(ids)) == len(ids)


def mask(description: dict[str, Any]) -> np.ndarray:
    """An array from its description in cases.yaml."""
    if "rows" in description:
        return np.array(description["rows"], bool)
    array = np.zeros(description["shape"], bool)
    for voxel in description.get("voxels", []):
        array[tuple(voxel)] = True
    if "box" in description:
        array[tuple(slice(start, stop) for start, stop in description["box"])] = True
    if "sphere" in description:
        sphere = description["sphere"]
        offsets = [index - centre for index, centre in zip(np.indices(array.shape), sphere["centre"], strict=True)]
        array = sum(offset**2 for offset in offsets) <= sphere["radius"] ** 2
    return ~array if description.get("invert") else array


def distances(pred: Any, ref: Any, spacing_mm: list[float], element: str = "surfel", **_: Any) -> SurfaceDistances:
    found = surface_distances(mask(pred), mask(ref), tuple(spacing_mm), element)
    assert found is not None
    return found


def average(side: DirectedDistances) -> float:
    return float(np.average(side.distances_mm, weights=side.weights))


def counts(pred: Any, ref: Any) -> list[int]:
    found, size = overlap(mask(pred), mask(ref)), mask(ref).size
    negative = size - found.both - found.pred_only - found.ref_only
    return [found.both, found.pred_only, negative, found.ref_only]


def row(pred: Any, ref: Any, policy: str) -> dict[str, Any]:
    """All metrics of two masks at 1 mm; a plane is one slice of a volume."""
    masks = [np.atleast_3d(mask(description)) for description in (pred, ref)]
    diagonal_mm = float(np.linalg.norm(masks[0].shape))
    return score_masks(*masks, (1.0, 1.0, 1.0), MetricConfig(empty_policy=policy), 1.0, diagonal_mm)


def summary(dice: list[list[float | None]]) -> dict[str, Any]:
    """The summary of a table of Dice, case by structure."""
    nothing = row({"shape": [2, 2, 2]}, {"shape": [2, 2, 2]}, "segpipe")
    names = [f"structure {index}" for index in range(len(dice[0]))]
    cases = [
        ScoredCase(
            f"case {i}", f"case {i}", {name: {**nothing, "dice": v} for name, v in zip(names, line, strict=True)}
        )
        for i, line in enumerate(dice)
    ]
    return summarise(cases, names, resamples=100)


FUNCTIONS = {
    "dice": lambda pred, ref: overlap(mask(pred), mask(ref)).dice,
    "iou": lambda pred, ref: overlap(mask(pred), mask(ref)).iou,
    "dice_per_class": lambda pred, ref: [overlap(mask(p), mask(r)).dice for p, r in zip(pred, ref, strict=True)],
    "iou_per_class": lambda pred, ref: [overlap(mask(p), mask(r)).iou for p, r in zip(pred, ref, strict=True)],
    "tp_fp_tn_fn_per_class": lambda pred, ref: [counts(p, r) for p, r in zip(pred, ref, strict=True)],
    "dice_by_policy": lambda policy, pred, ref: [row(p, r, policy)["dice"] for p, r in zip(pred, ref, strict=True)],
    "nsd_by_policy": lambda policy, pred, ref: row(pred, ref, policy)["nsd"],
    "distances_by_policy": lambda policy, pred, ref: [
        row(pred, ref, policy)[metric] for metric in ("hd_mm", "hd95_mm", "assd_mm")
    ],
    "mean_per_structure": lambda dice: [table["dice"]["mean"] for table in summary(dice)["structures"].values()],
    "mean_over_structures": lambda dice: summary(dice)["mean"]["dice"]["mean"],
    "hausdorff_mm": lambda **a: distances(**a).hausdorff_mm(),
    "hausdorff_pred_to_ref_mm": lambda **a: distances(**a).pred_to_ref.distances_mm.max(),
    "hd95_mm": lambda **a: distances(**a).hausdorff_mm(95),
    "average_mm": lambda **a: distances(**a).average_mm(),
    "average_pred_to_ref_mm": lambda **a: average(distances(**a).pred_to_ref),
    "average_ref_to_pred_mm": lambda **a: average(distances(**a).ref_to_pred),
    "nsd": lambda tolerance_mm, **a: distances(**a).dice(tolerance_mm),
    "ref_weights": lambda **a: distances(**a).ref_to_pred.weights,
    "ref_distances_sorted": lambda **a: np.sort(distances(**a).ref_to_pred.distances_mm),
}
