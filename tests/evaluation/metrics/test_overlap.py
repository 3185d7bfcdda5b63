"""Laws of overlap: bounds, symmetry, equality, and how Dice and IoU hang together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.evaluation.metrics.overlap import Overlap, overlap
from tests.evaluation.metrics.random_masks import blobs, pairs


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_laws(pair: tuple) -> None:
    pred, ref, _ = pair
    found, reverse = overlap(pred, ref), overlap(ref, pred)
    assert 0 <= found.iou <= found.dice <= 1
    assert (found.dice == 1) == np.array_equal(pred, ref)
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    assert (found.dice, found.iou) == (reverse.dice, reverse.iou)
    assert (found.precision, found.recall) == (reverse.recall, reverse.precision)
    turned = overlap(pred.T[::-1], ref.T[::-1])
    assert turned == found


@pytest.mark.parametrize("seed", range(3))
def test_overlap_agrees_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import compute_confusion_matrix_metric, compute_dice, compute_iou, get_confusion_matrix

    pred, ref = blobs(seed)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (pred, ref)]
    matrix = get_confusion_matrix(*masks)
    found = overlap(pred, ref)
    assert found.dice == pytest.approx(float(compute_dice(*masks)))
    assert found.iou == pytest.approx(float(compute_iou(*masks)))
    assert found.precision == pytest.approx(float(compute_confusion_matrix_metric("precision", matrix)))
    assert found.recall == pytest.approx(float(compute_confusion_matrix_metric("recall", matrix)))


def test_nothing_over_nothing_is_undefined() -> None:
    assert Overlap(0, 0, 0).dice is None
    assert Overlap(0, 0, 0).iou is None
    assert Overlap(0, 0, 3).precision is None
    assert Overlap(0, 0, 3).recall == 0
    assert Overlap(0, 3, 0).recall is None
