"""A whole case at once equals its structures one by one; regions, ignored voxels, empty sides, confusion."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.metrics.bounding_boxes import structure_boxes
from pipeline.evaluation.metrics.confusion_matrix import disjoint_label_sets
from pipeline.evaluation.metrics.score_case import METRICS, MetricConfig, score_case, score_masks
from tests.evaluation.metrics.random_masks import blobs

SPACING_MM = (0.7, 1.9, 3.1)


def two_label_maps() -> tuple[np.ndarray, np.ndarray]:
    """Three structures with the values 1, 2 and 700."""
    maps = []
    for side in range(2):
        labels = np.zeros((30, 26, 22), np.int32)
        for seed, value in ((1, 1), (2, 2), (3, 700)):
            labels[blobs(seed)[side]] = value
        maps.append(labels)
    return maps[0], maps[1]


def test_boxes_change_nothing() -> None:
    pred, ref = two_label_maps()
    structures = {"one": (1,), "large value": (700,), "region": (1, 2)}
    settings = MetricConfig(tolerance_mm={"one": 2.0}, default_tolerance_mm=0.5)
    rows = score_case(pred, ref, structures, SPACING_MM, settings).rows
    diagonal_mm = float(np.linalg.norm(np.array(ref.shape) * SPACING_MM))
    for name, values in structures.items():
        masks = np.isin(pred, values), np.isin(ref, values)
        whole = score_masks(*masks, SPACING_MM, settings, settings.tolerance_of(name), diagonal_mm)
        assert rows[name] == pytest.approx(whole)


def test_boxes_of_more_structures_than_bits() -> None:
    labels = np.zeros((150, 2, 3), np.uint8)
    labels[np.arange(150), 1, 2] = np.arange(150)
    boxes = structure_boxes((labels, np.zeros_like(labels)), {f"s{value}": (value,) for value in range(1, 151)})
    for value in range(1, 150):
        assert boxes[f"s{value}"] == (slice(value, value + 1), slice(1, 2), slice(2, 3))
    assert boxes["s150"] == (slice(0, 0),) * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_label_values_outside_the_declared_ones_are_background(dtype: type) -> None:
    pred = np.zeros((4, 4, 4), dtype)
    pred[0, 0, 0], pred[1, 1, 1] = 1, 100
    if dtype is not np.uint8:
        pred[2, 2, 2] = -1
    row = score_case(pred, pred, {"one": (1,)}, (1.0, 1.0, 1.0), MetricConfig())
    assert row.rows["one"]["volume_pred_ml"] == pytest.approx(0.001)
    assert row.confusion.tolist() == [[63, 0], [0, 1]]


def test_ignored_voxels_belong_to_no_structure() -> None:
    ref = np.zeros((6, 6, 6), np.uint8)
    ref[1:4, 1:4, 1:4] = 1
    pred = ref.copy()
    pred[4:, :, :] = 1  # wrong, but where nobody looked
    ref[4:, :, :] = 255
    score = score_case(pred, ref, {"one": (1,)}, (1.0, 1.0, 1.0), MetricConfig(), ignore_value=255)
    assert score.rows["one"]["dice"] == 1
    assert score.rows["one"]["hd_mm"] == 0
    assert score.rows["one"]["volume_pred_ml"] == score.rows["one"]["volume_ref_ml"]


def test_confusion_counts_every_voxel_once() -> None:
    pred, ref = two_label_maps()
    matrix = score_case(pred, ref, {"a": (1,), "b": (2,), "c": (700,)}, SPACING_MM, MetricConfig()).confusion
    values = [0, 1, 2, 700]
    expected = [[int(((ref == r) & (pred == p)).sum()) for p in values] for r in values]
    assert matrix.tolist() == expected


def test_structures_that_share_values_are_confused_by_their_parts() -> None:
    """A tumour of the values 1 and 2 whose core is 2; four voxels, one of them core that was taken for the rest."""
    ref = np.array([0, 1, 2, 2], np.uint8).reshape(4, 1, 1)
    pred = np.array([0, 1, 1, 2], np.uint8).reshape(4, 1, 1)
    structures = {"tumour": (1, 2), "core": (2,)}
    assert disjoint_label_sets(structures) == {"tumour only": (1,), "tumour + core": (2,)}
    matrix = score_case(pred, ref, structures, SPACING_MM, MetricConfig()).confusion
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert disjoint_label_sets({"a": (1,), "b": (3, 2)}) == {"a": (1,), "b": (3, 2)}


@pytest.mark.parametrize(
    ("policy", "kind", "expected"),
    [  # Dice, IoU, NSD, HD95, lesion F1; None is undefined
        ("segpipe", "both_empty", (None, None, None, None, None)),
        ("segpipe", "ref_empty", (0, 0, 0, 13, 0)),
        ("segpipe", "pred_empty", (0, 0, 0, 13, 0)),
        ("reloaded", "both_empty", (1, None, None, 0, 1)),
        ("reloaded", "ref_empty", (0, 0, 0, None, 0)),
        ("reloaded", "pred_empty", (0, 0, 0, None, 0)),
        ("nnunet", "both_empty", (None, None, None, None, None)),
        ("nnunet", "ref_empty", (0, 0, 0, None, 0)),
        ("nnunet", "pred_empty", (0, 0, 0, None, 0)),
        ("monai", "both_empty", (None, None, None, None, None)),
        ("monai", "ref_empty", (None, None, 0, None, 0)),
        ("monai", "pred_empty", (0, 0, 0, None, 0)),
    ],
)
def test_empty_rules(policy: str, kind: str, expected: tuple) -> None:
    """The table of docs/definitions.md. The volume is 3 × 4 × 12 mm: its diagonal is 13 mm."""
    empty, one = np.zeros((3, 4, 12), bool), np.zeros((3, 4, 12), bool)
    one[1, 1, 1] = True
    pred, ref = {"both_empty": (empty, empty), "ref_empty": (one, empty), "pred_empty": (empty, one)}[kind]
    row = score_case(
        pred.astype(np.uint8), ref.astype(np.uint8), {"one": (1,)}, (1.0, 1.0, 1.0), MetricConfig(empty_policy=policy)
    ).rows["one"]
    assert tuple(row[metric] for metric in ("dice", "iou", "nsd", "hd95_mm", "lesion_f1")) == expected
    assert row["empty"] == kind
    assert set(METRICS) < set(row)


@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class")
@pytest.mark.parametrize("kind", ["both_empty", "ref_empty", "pred_empty", None])
def test_the_policy_monai_is_what_monai_does(kind: str | None) -> None:
    """Undefined here is NaN there, or an infinite distance, which no mean survives."""
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, MeanIoU, SurfaceDiceMetric, SurfaceDistanceMetric

    pred, ref = np.zeros((3, 4, 12), bool), np.zeros((3, 4, 12), bool)
    if kind in ("ref_empty", None):
        pred[1, 1, 1:4] = True
    if kind in ("pred_empty", None):
        ref[1, 1, 2:7] = True
    theirs = {
        "dice": DiceMetric(),
        "iou": MeanIoU(),
        "nsd": SurfaceDiceMetric([1.0], include_background=True),
        "hd_mm": HausdorffDistanceMetric(include_background=True),
        "hd95_mm": HausdorffDistanceMetric(include_background=True, percentile=95),
        "assd_mm": SurfaceDistanceMetric(include_background=True, symmetric=True),
    }
    settings = MetricConfig(empty_policy="monai", surface="voxel")
    row = score_masks(pred, ref, (1.0, 1.0, 1.0), settings, 1.0, 13.0)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (pred, ref)]
    for name, metric in theirs.items():
        value = float(metric(*masks)[0, 0])
        assert row[name] == (pytest.approx(value) if np.isfinite(value) else None), (name, value)


def test_volume_difference_is_signed() -> None:
    ref, pred = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    ref[0], pred[0, 0] = 1, 1
    row = score_case(pred, ref, {"one": (1,)}, (10.0, 10.0, 10.0), MetricConfig()).rows["one"]
    assert (row["volume_ref_ml"], row["volume_pred_ml"]) == (16, 4)
    assert row["volume_difference_ml"] == -12
    assert row["volume_difference_percent"] == -75
