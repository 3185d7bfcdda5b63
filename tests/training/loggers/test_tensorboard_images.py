"""Pictures of a validation: outlines where values change, and which way up the patient lies."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.training.loggers.tensorboard_images import ValidationImages, draw_image, outline
from pipeline.training.validation import LabelTables, predicted_label, shown_label


def test_an_outline_is_where_a_value_meets_another() -> None:
    labels = np.zeros((5, 5), int)
    labels[1:4, 1:4] = 2
    ring = labels > 0
    ring[2, 2] = False
    assert np.array_equal(outline(labels), ring)
    assert not outline(np.full((4, 4), 3)).any()


def test_the_patients_right_front_is_drawn_top_left() -> None:
    """Axes are R, A, S: index 0 along x lies left, so that the last x and the last y come first."""
    one = np.zeros((6, 4))
    one[5, 3] = 1
    picture = draw_image(np.zeros((6, 4)), one, np.zeros((6, 4)))
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    green = np.argwhere((picture == (0, 200, 80)).all(axis=2))
    assert green.tolist() == [[0, 0]]
    assert (draw_image(np.zeros((6, 4)), one, one)[0, 0] == (255, 220, 0)).all()


def test_three_cases_are_kept_and_replaced() -> None:
    pictures, label = ValidationImages(), torch.zeros(4, 4, 3, dtype=torch.long)
    for round_number in range(2):
        for case in "abcde":
            pictures.take(case, torch.full((1, 4, 4, 3), float(round_number)), label, label)
    assert set(pictures.last()) == {"a", "b", "c"}


def test_labels_are_shown_as_they_are_stored() -> None:
    logits = torch.tensor([1.0, -1.0, 2.0])[:, None, None, None].expand(3, 2, 2, 2)
    exclusive, overlapping = LabelTables(("a", "b"), False, 255), LabelTables(("a", "b", "c"), True, None)
    assert (predicted_label(logits, exclusive) == 2).all()
    assert (predicted_label(logits, overlapping) == 0b101).all()
    assert shown_label(torch.tensor([1, 255]), exclusive).tolist() == [1, 0]
