"""Resampling against scipy and MONAI, and laws that hold on every grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.preprocessing.resample import (
    nearest_indices,
    resample_bits,
    resample_classes,
    resample_image,
    resample_nearest,
)

sizes = st.tuples(*[st.integers(1, 12)] * 3)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(7, 21, 5), (20, 11, 13), (9, 10, 30)])
def test_equals_scipy_zoom(order: int, shape: tuple[int, int, int]) -> None:
    source = np.random.default_rng(0).normal(size=(12, 14, 10)).astype(np.float32)
    factors = [m / n for m, n in zip(shape, source.shape, strict=True)]
    expected = ndimage.zoom(source.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample_image(source, shape, order), expected, atol=2e-5)


def test_linear_equals_torch_interpolate() -> None:
    source = np.random.default_rng(1).normal(size=(9, 8, 11)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(source)[None, None], (13, 5, 11), mode="trilinear")
    np.testing.assert_allclose(resample_image(source, (13, 5, 11)), expected[0, 0].numpy(), atol=2e-6)


@given(sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_a_constant_stays_and_values_stay_within_range(source_shape: tuple, shape: tuple) -> None:
    source = np.random.default_rng(0).uniform(-3, 5, source_shape).astype(np.float32)
    np.testing.assert_allclose(resample_image(np.full(source_shape, 7.0), shape), 7.0, rtol=1e-6)
    linear = resample_image(source, shape)
    assert linear.min() >= source.min() - 1e-5 and linear.max() <= source.max() + 1e-5


def test_preparation_comes_before_resampling() -> None:
    source = np.random.default_rng(2).normal(size=(6, 6, 6)).astype(np.float32)
    clipped = resample_image(source, (4, 9, 5), prepare=lambda part: np.clip(part, -0.5, 0.5))
    np.testing.assert_allclose(clipped, resample_image(np.clip(source, -0.5, 0.5), (4, 9, 5)), atol=1e-6)


def test_nearest_takes_the_voxel_that_a_target_lies_in() -> None:
    # Five voxels over the width of two: centres at .2 .6 1.0 1.4 1.8 of the source's extent [0, 2).
    assert nearest_indices(2, 5).tolist() == [0, 0, 1, 1, 1]
    assert nearest_indices(4, 2).tolist() == [1, 3]
    source = np.random.default_rng(3).integers(0, 9, (7, 5, 6)).astype(np.uint8)
    factors = [m / n for m, n in zip((14, 15, 18), source.shape, strict=True)]
    expected = ndimage.zoom(source, factors, order=0, mode="nearest", grid_mode=True)
    assert np.array_equal(resample_nearest(source, (14, 15, 18)), expected)


@given(sizes, sizes, st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_classes_equal_the_argmax_of_all_linear_shares(source_shape: tuple, shape: tuple, seed: int) -> None:
    source = np.random.default_rng(seed).integers(0, 4, source_shape).astype(np.uint8)
    shares = np.stack([resample_image((source == k).astype(np.float32), shape) for k in range(4)])
    result = resample_classes(source, shape)
    won = np.take_along_axis(shares, result[None].astype(int), 0)[0]
    assert (won >= shares.max(axis=0) - 1e-5).all()


def test_classes_are_unchanged_on_their_own_grid_and_shrink_to_a_majority() -> None:
    source = np.zeros((4, 4, 4), np.uint8)
    source[:2] = 1
    source[2:, 2:] = 3
    assert np.array_equal(resample_classes(source, (4, 4, 4)), source)
    assert np.array_equal(resample_classes(source, (2, 2, 2)), source[::2, ::2, ::2])


def test_bits_are_resampled_each_on_its_own() -> None:
    rng = np.random.default_rng(4)
    source = rng.integers(0, 8, (6, 7, 8)).astype(np.uint8)
    result = resample_bits(source, (11, 5, 9), 3)
    for bit in range(3):
        share = resample_image(((source >> bit) & 1).astype(np.float32), (11, 5, 9))
        clear = np.abs(share - 0.5) > 1e-5
        assert np.array_equal(((result >> bit) & 1).astype(bool)[clear], (share > 0.5)[clear])
