"""Class weights, from volumes that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.planning.class_weights import inverse_frequency
from tests.planning.loaded_cases import make_case, make_cases

SHAPE, SPACING = (10, 10, 10), (1.0, 1.0, 1.0)


def test_class_weights_are_inverse_to_volume_with_mean_1() -> None:
    cases = make_cases([make_case(i, SHAPE, SPACING, label_voxels={"a": 90, "b": 10}) for i in range(2)])
    weights = inverse_frequency(cases, "none", SPACING)
    assert np.mean(weights) == pytest.approx(1, abs=1e-4)
    assert np.allclose(np.array(weights) * [900, 90, 10], weights[0] * 900, rtol=1e-3)
    overlapping = make_cases(cases.cases, overlapping=True)
    assert len(inverse_frequency(overlapping, "none", SPACING)) == 2


def test_a_class_that_is_nowhere_weighs_as_the_smallest_that_is_there() -> None:
    """1000 voxels, 90 of a and 10 of b: by its own volume c would weigh four, and all others together nothing."""
    cases = make_cases([make_case(0, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})], structures=["a", "b", "c"])
    weights = np.array(inverse_frequency(cases, "none", SPACING))
    assert np.allclose(weights * [900, 90, 10, 10], weights[0] * 900, rtol=1e-3)
    nothing = make_cases([make_case(0, SHAPE, SPACING, label_voxels={"d": 1})], overlapping=True)
    assert inverse_frequency(nothing, "none", SPACING) == (1.0, 1.0)


def test_class_weights_count_what_a_loss_sees() -> None:
    """Of 1000 voxels a crop keeps 5 × 6 × 10 = 300; 40 of them are ignored, 90 + 10 labelled: 160 are background."""
    case = make_case(0, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})
    kept = case.model_copy(update={"nonzero_shape": (5, 6, 10), "ignored_voxels": 40})
    weights = inverse_frequency(make_cases([kept]), "nonzero", SPACING)
    assert np.allclose(np.array(weights) * [160, 90, 10], weights[0] * 160, rtol=1e-3)


def test_class_weights_count_voxels_of_the_planned_grid() -> None:
    """Two scans of one body: b's volume is 10 ml in both, though one has it in eight times as many voxels."""
    fine = make_case(0, (20, 20, 20), (0.5, 0.5, 0.5), label_voxels={"a": 720, "b": 80})
    coarse = make_case(1, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})
    both = inverse_frequency(make_cases([fine, coarse]), "none", SPACING)
    assert both == inverse_frequency(make_cases([coarse, coarse]), "none", SPACING)
