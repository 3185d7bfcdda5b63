"""Validation while training: whose labels, what Dice, and how much of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inference.sliding_window import sliding_window, window_grid
from pipeline.training.validation import LabelTables, dice_per_structure, plan_validation, predict_label, validate

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


@given(
    sizes=st.lists(st.tuples(*[st.integers(8, 60)] * 3), min_size=1, max_size=12),
    steps=st.integers(10, 5000),
    share=st.floats(0.01, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_validation_takes_its_share_or_one_case_side_by_side(sizes, steps, share):
    """A window costs a third of a patch, so that 3 · share · patches may be seen; the last validation is due anyway."""
    shapes = {f"c{i:02d}": size for i, size in enumerate(sizes)}
    plan = plan_validation(shapes, ROI, 2, steps, share, 0.5, None, None)
    allowed = 3 * share * 2 * steps
    cost = sum(window_grid(shapes[case], ROI, plan.overlap).count for case in plan.cases)
    rounds = sum(plan.due(step, steps) for step in range(1, steps + 1))
    assert set(plan.cases) <= set(shapes) and plan.due(steps, steps)
    if rounds * cost > allowed:
        assert rounds <= 2 and len(plan.cases) <= 2
        fewest = {overlap: min(window_grid(size, ROI, overlap).count for size in sizes) for overlap in (0.0, 0.5)}
        assert plan.overlap == (0.0 if fewest[0.5] > allowed else 0.5)
        assert len(plan.cases) == 1 or 2 * fewest[plan.overlap] <= allowed


def test_with_a_pinned_interval_all_validations_share_what_is_allowed():
    """100 steps of two patches and a share of 0.3 allow 180 windows; a case of 16³ has 27 of 8³ (overlap 0.5)."""
    shapes = {f"c{i}": (16, 16, 16) for i in range(8)}
    numbers = {
        interval: len(plan_validation(shapes, ROI, 2, 100, 0.3, 0.5, interval, None).cases)
        for interval in (100, 50, 30, 10)
    }
    assert numbers == {100: 6, 50: 3, 30: 1, 10: 1}


def test_asked_for_cases_and_intervals_are_kept():
    plan = plan_validation({f"c{i}": (16, 16, 16) for i in range(8)}, ROI, 2, 100, 0.01, 0.25, 7, 4)
    assert (plan.interval, len(plan.cases), plan.overlap) == (7, 4, 0.25)
