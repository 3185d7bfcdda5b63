"""Validation while training: whose labels, what Dice, and how much of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.inference.sliding_window import sliding_window
from pipeline.training.validation import LabelTables, dice_per_structure, predict_label, validate

CPU = torch.device("cpu")
EXCLUSIVE, OVERLAPPING = LabelTables(("a", "b"), False, 255), LabelTables(("whole", "core"), True, None)
ROI = (8, 8, 8)


def network(windows: torch.Tensor) -> torch.Tensor:
    """Three classes whose borders run through the image."""
    return torch.cat([torch.cos(3 * k + (1 + k) * windows) for k in range(3)], 1)


def two(windows: torch.Tensor) -> torch.Tensor:
    return network(windows)[:, :2]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("labelling", "net"), [(EXCLUSIVE, network), (OVERLAPPING, two)])
def test_labels_are_those_of_all_logits_at_once(labelling, net, half):
    image = torch.randn((1, 21, 9, 5), generator=torch.Generator().manual_seed(0))
    logits = sliding_window(image[None], net, ROI, overlap=0.5)[0]
    if labelling.overlapping:
        expected = (logits[0] > 0).long() + 2 * (logits[1] > 0).long()
    else:
        expected = logits.argmax(0)
    found = predict_label(net, image, labelling, ROI, CPU, 0.5, sw_batch_size=3, half_beyond_gib=0.0 if half else 1.0)
    assert (found == expected).float().mean() >= (0.99 if half else 1.0)
    assert len(expected.unique()) > 2


def test_dice_by_hand_with_ignored_voxels_and_absent_structures():
    found = torch.tensor([1, 1, 0, 0, 1, 1])[:, None, None]
    label = torch.tensor([1, 0, 1, 0, 255, 255])[:, None, None]
    one, other = dice_per_structure(found, label, EXCLUSIVE)
    assert one == pytest.approx(2 * 1 / (2 + 2)) and math.isnan(other)
    bits = torch.tensor([3, 1, 0, 2])[:, None, None], torch.tensor([3, 3, 1, 0])[:, None, None]
    assert dice_per_structure(*bits, OVERLAPPING) == pytest.approx([2 * 2 / (2 + 3), 2 * 1 / (2 + 2)])


def test_a_structure_counts_in_the_cases_that_hold_or_predict_it():
    class Store:
        def image(self, case):
            return np.zeros((1, 8, 8, 8), np.float32)

        def label(self, case):
            return np.full((8, 8, 8), {"one": 0, "other": 1}[case], np.uint8)

    def always_a(windows):
        return torch.tensor([0.0, 1.0, -1.0])[None, :, None, None, None].expand(len(windows), 3, *ROI)

    dice = validate(always_a, Store(), ["one", "other"], EXCLUSIVE, ROI, CPU, 0.5, 1)
    assert dice == {"a": 0.5}  # 0 where it is not, 1 where it is; b is nowhere
