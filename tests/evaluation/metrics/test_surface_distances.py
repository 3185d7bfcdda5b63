"""Surface distances against two other libraries on random blobs, and laws that hold for every pair of masks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.metrics.surface_distances import Element, SurfaceDistances, surface_distances
from tests.evaluation.metrics.random_masks import blobs, pairs

SPACING_MM = (0.7, 1.9, 3.1)
ELEMENTS = st.sampled_from(("surfel", "voxel"))


def figures(
    pred: np.ndarray, ref: np.ndarray, spacing_mm: tuple[float, ...], element: Element, **how: float
) -> np.ndarray:
    """HD, HD95, ASSD in mm, and NSD at 1 mm."""
    found = distances(pred, ref, spacing_mm, element, **how)
    return np.array([found.hausdorff_mm(), found.hausdorff_mm(95), found.average_mm(), found.dice(1.0)])


def distances(
    pred: np.ndarray, ref: np.ndarray, spacing_mm: tuple[float, ...], element: Element, **how: float
) -> SurfaceDistances:
    found = surface_distances(pred, ref, spacing_mm, element, **how)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
def test_surfels_agree_with_surface_distance(seed: int) -> None:
    other = pytest.importorskip("surface_distance", reason="pip install surface-distance")
    pred, ref = blobs(seed)
    theirs = other.compute_surface_distances(ref, pred, SPACING_MM)
    areas = np.concatenate([theirs["surfel_areas_gt"], theirs["surfel_areas_pred"]])
    lengths = np.concatenate([theirs["distances_gt_to_pred"], theirs["distances_pred_to_gt"]])
    expected = [
        other.compute_robust_hausdorff(theirs, 100),
        other.compute_robust_hausdorff(theirs, 95),
        np.average(lengths, weights=areas),
        other.compute_surface_dice_at_tolerance(theirs, 1.0),
    ]
    np.testing.assert_allclose(figures(pred, ref, SPACING_MM, "surfel"), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_voxels_agree_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    pred, ref = blobs(seed)
    given_to_monai = [torch.from_numpy(mask)[None, None] for mask in (pred, ref)]
    same = {"include_background": True, "spacing": SPACING_MM}
    expected = [
        compute_hausdorff_distance(*given_to_monai, **same),
        compute_hausdorff_distance(*given_to_monai, percentile=95, **same),
        compute_average_surface_distance(*given_to_monai, symmetric=True, **same),
        compute_surface_dice(*given_to_monai, class_thresholds=[1.0], **same),
    ]
    found = figures(pred, ref, SPACING_MM, "voxel")
    np.testing.assert_allclose(found, [float(value) for value in expected], rtol=1e-5)  # MONAI keeps fp32


def test_noise_and_smooth_masks_go_different_ways_to_one_answer() -> None:
    """A search tree and a distance transform find the same distances."""
    pred, ref = blobs(7)
    tree, transform = (figures(pred, ref, SPACING_MM, "surfel", voxels_per_query=voxels) for voxels in (0, 10**9))
    np.testing.assert_allclose(tree, transform, rtol=1e-12)


def test_one_side_empty_has_no_distance() -> None:
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert surface_distances(empty, full, SPACING_MM) is None
    assert surface_distances(full, empty, SPACING_MM) is None
    assert surface_distances(empty, empty, SPACING_MM) is None


def test_a_spacing_with_rounding_does_not_move_a_surface_out_of_tolerance() -> None:
    """Two slabs one voxel apart, at a spacing that an oblique affine made 1.00000001 mm."""
    one, other = np.zeros((8, 4, 4), bool), np.zeros((8, 4, 4), bool)
    one[2:5], other[3:6] = True, True
    exact = distances(one, other, (1.0, 1.0, 1.0), "surfel").dice(1.0)
    rounded = distances(one, other, (1.00000001, 1.0, 1.0), "surfel").dice(1.0)
    assert rounded == pytest.approx(exact)
    assert exact == 1.0


def test_hd95_takes_the_larger_direction_instead_of_pooling() -> None:
    """A cube and the same with two voxels far off: 7 % of the prediction's surface, 4 % of both surfaces together.

    ref   .###..........        pred  .###.......#.#
    """
    ref = np.zeros((40, 9, 9), bool)
    ref[2:5, 3:6, 3:6] = True
    pred = ref.copy()
    pred[[30, 34], 4, 4] = True
    found = distances(pred, ref, (1.0, 1.0, 1.0), "surfel")
    weights = np.concatenate([found.pred_to_ref.weights, found.ref_to_pred.weights])
    far = found.pred_to_ref.distances_mm > 0
    outliers = found.pred_to_ref.weights[far].sum()
    assert outliers > 0.05 * found.pred_to_ref.weights.sum()
    assert outliers < 0.05 * weights.sum()
    assert found.hausdorff_mm(95) > 20


@given(pairs(), ELEMENTS)
@settings(max_examples=60, deadline=None)
def test_both_ways_round_is_the_same(pair: tuple, element: Element) -> None:
    pred, ref, spacing_mm = pair
    np.testing.assert_allclose(figures(pred, ref, spacing_mm, element), figures(ref, pred, spacing_mm, element))


@given(pairs(), ELEMENTS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=60, deadline=None)
def test_axes_may_be_permuted_with_spacing_and_flipped(
    pair: tuple, element: Element, order: list[int], flips: tuple[bool, ...]
) -> None:
    """Catches spacing in another order than the axes, the usual mistake between SimpleITK and nibabel."""
    pred, ref, spacing_mm = pair
    slices = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask.transpose(order)[slices] for mask in (pred, ref)]
    turned_mm = tuple(spacing_mm[axis] for axis in order)
    np.testing.assert_allclose(figures(*turned, turned_mm, element), figures(pred, ref, spacing_mm, element))


@given(pairs(), ELEMENTS, st.floats(0.2, 5))
@settings(max_examples=60, deadline=None)
def test_distances_scale_with_spacing(pair: tuple, element: Element, factor: float) -> None:
    pred, ref, spacing_mm = pair
    scaled = distances(pred, ref, tuple(s * factor for s in spacing_mm), element)
    plain = distances(pred, ref, spacing_mm, element)
    assert scaled.hausdorff_mm() == pytest.approx(factor * plain.hausdorff_mm())
    assert scaled.average_mm() == pytest.approx(factor * plain.average_mm())
    assert scaled.dice(factor) == pytest.approx(plain.dice(1.0))


@given(pairs(), ELEMENTS)
@settings(max_examples=60, deadline=None)
def test_percentiles_and_tolerances_are_ordered(pair: tuple, element: Element) -> None:
    pred, ref, spacing_mm = pair
    found = distances(pred, ref, spacing_mm, element)
    percentiles = [found.hausdorff_mm(p) for p in (50, 90, 95, 99, 100)]
    assert percentiles == sorted(percentiles)
    assert found.average_mm() <= found.hausdorff_mm() * (1 + 1e-12)
    shares = [found.dice(tolerance) for tolerance in (0, 0.5, 1, 2, found.hausdorff_mm())]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


@given(st.integers(0, 2), st.integers(1, 5), st.tuples(*[st.sampled_from((0.5, 1.0, 2.5))] * 3), ELEMENTS)
@settings(max_examples=40, deadline=None)
def test_moving_a_voxel_moves_hd_by_that_many_spacings(
    axis: int, steps: int, spacing_mm: tuple, element: Element
) -> None:
    one = np.zeros((8, 8, 8), bool)
    one[1, 1, 1] = True
    moved = np.roll(one, steps, axis)
    assert distances(moved, one, spacing_mm, element).hausdorff_mm() == pytest.approx(steps * spacing_mm[axis])


@given(pairs(), ELEMENTS)
@settings(max_examples=40, deadline=None)
def test_equal_masks_have_no_distance(pair: tuple, element: Element) -> None:
    mask, _, spacing_mm = pair
    np.testing.assert_array_equal(figures(mask, mask, spacing_mm, element), [0, 0, 0, 1])


@pytest.mark.parametrize("order", permutations(range(3)))
def test_memory_order_changes_nothing(order: tuple[int, ...]) -> None:
    """nibabel's arrays lie in Fortran order, SimpleITK's in C order."""
    pred, ref = blobs(3)
    back = np.argsort(order)
    same = [np.ascontiguousarray(mask.transpose(order)).transpose(back) for mask in (pred, ref)]
    np.testing.assert_array_equal(figures(*same, SPACING_MM, "surfel"), figures(pred, ref, SPACING_MM, "surfel"))
