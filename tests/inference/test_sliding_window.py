"""The sliding window is MONAI's, on the golden cases (W) and on random ones, and it obeys its laws."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from pipeline.inference.sliding_window import importance_map, sliding_window, window_grid, window_starts

SIZES = st.integers(1, 23)


@pytest.mark.parametrize(
    ("size", "roi", "overlap", "starts"),
    [  # W07: monai/data/utils.py dense_patch_slices
        (16, 4, 0.25, (0, 3, 6, 9, 12)),
        (7, 3, 0.5, (0, 1, 2, 3, 4)),
        (20, 10, 0.0, (0, 10)),
        (15, 10, 0.0, (0, 5)),
        (100, 96, 0.5, (0, 4)),
        (110, 64, 0.5, (0, 32, 46)),
    ],
)
def test_fixed_starts_are_monais(size, roi, overlap, starts):
    assert window_starts(size, roi, overlap) == starts


@pytest.mark.parametrize(
    ("size", "starts"),
    [(110, (0, 23, 46)), (100, (0, 18, 36)), (65, (0, 1)), (128, (0, 32, 64)), (64, (0,))],  # W08: nnU-Net, step 0.5
)
def test_even_starts_are_nnunets(size, starts):
    assert window_starts(size, 64, 0.5, "even") == starts


def test_importance_map_is_a_gaussian_around_the_centre():
    expected = [0.005976, 0.278037, 1, 0.278037, 0.005976]  # W09: exp(-d²/2(.625)²)
    np.testing.assert_allclose(importance_map((5,), "gaussian", 0.125), expected, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.9), st.sampled_from(["fixed", "even"]))
def test_windows_cover_the_axis_and_stay_inside(size, roi, overlap, starts):
    size = max(size, roi)
    found = window_starts(size, roi, overlap, starts)
    assert list(found) == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == size - roi
    assert all(later - earlier <= roi for earlier, later in pairwise(found))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(SIZES, SIZES, SIZES),
    st.tuples(*[st.integers(2, 12)] * 3),
    st.floats(0, 0.8),
    st.sampled_from(["gaussian", "constant"]),
    st.sampled_from(["fixed", "even"]),
)
def test_a_blended_constant_stays_constant(shape, roi, overlap, mode, starts):
    blended = sliding_window(
        torch.zeros(1, 1, *shape), lambda x: torch.full_like(x, 3.0), roi, overlap, mode, starts=starts
    )
    assert blended.shape[2:] == shape
    torch.testing.assert_close(blended, torch.full_like(blended, 3.0))


@pytest.mark.parametrize("shape", [(16, 15, 7), (3, 16, 15), (4, 4, 4), (20, 22, 23)])
@pytest.mark.parametrize("roi", [(4, 10, 7), (8, 8, 8), (5, 3, 16)])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_equal_to_monai_on_random_logits(shape, roi, mode, overlap):
    """A predictor that depends on the place in the window: wrong starts, weights or padding would show."""
    torch.manual_seed(hash((shape, roi)) % 1000)
    image, kernel = torch.randn(2, 1, *shape), torch.randn(3, 1, *roi)

    def network(x):
        return x * kernel[:, 0] + x.mean(dim=(2, 3, 4), keepdim=True)

    expected = sliding_window_inference(image, roi, 4, network, overlap=overlap, mode=mode, sigma_scale=0.125)
    torch.testing.assert_close(sliding_window(image, network, roi, overlap, mode), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("roi", [(4, 10, 7), (8, 8, 8), (20, 22, 23)])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_adding_one_adds_one_everywhere(roi, mode):
    image = torch.arange(16 * 15 * 7, dtype=torch.float32).reshape(1, 1, 16, 15, 7)  # W01
    torch.testing.assert_close(sliding_window(image, lambda x: x + 1, roi, 0.25, mode), image + 1)


def test_padding_is_seen_by_the_network_and_cut_off_again():
    image = torch.ones(1, 1, 3, 3)  # W02: 9·1 + 16·(−1) = −7, and 1 of the voxel itself
    blended = sliding_window(image, lambda x: x + x.sum(), (5, 5), 0.25, "constant", cval=-1.0)
    torch.testing.assert_close(blended, torch.full((1, 1, 3, 3), -6.0))


def test_windows_come_in_rows_and_batches():
    calls = iter(range(2, 10))  # W03: each batch of 10 windows adds its own number
    blended = sliding_window(
        torch.ones(1, 1, 7, 7), lambda x: x + next(calls), (3, 3), 0.5, "constant", sw_batch_size=10
    )
    rows = torch.tensor([3, 3, 3 + 1 / 3, 3 + 2 / 3, 4 + 1 / 3, 4.5, 5])
    torch.testing.assert_close(blended[0, 0], rows[:, None].expand(7, 7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(9, 8, 7), (3, 12, 2)])
def test_a_cut_window_is_what_padding_the_whole_image_would_give(shape):
    image, roi = np.random.default_rng(0).normal(size=(2, *shape)), (5, 6, 7)
    windows = window_grid(shape, roi, 0.5)
    after = [p - n - b for p, n, b in zip(windows.padded_shape, shape, windows.before, strict=True)]
    padded = np.pad(image, [(0, 0), *zip(windows.before, after, strict=True)], constant_values=7)
    for corner in windows.corners():
        box = tuple(slice(c, c + r) for c, r in zip(corner, roi, strict=True))
        np.testing.assert_array_equal(windows.cut(image, corner, cval=7), padded[(slice(None), *box)])
