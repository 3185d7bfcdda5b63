"""The moving slab gives what the plain way gives: the same logits, the same labels, on the image's own grid too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.inference.resample_logits import AxisSampling, Resampler
from pipeline.inference.slab_blending import SlabLayout, blend
from pipeline.inference.sliding_window import importance_map, sliding_window, window_grid

CLASSES = 4


def smooth_image(shape, seed=0):
    coarse = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


def network(x):
    """Cheap, with competing classes whose borders run through the volume, and dependent on the place in the window."""
    ramp = torch.linspace(-0.1, 0.1, x.shape[-1])
    return torch.cat(
        [torch.cos(3 * k + (1 + k) * x) + k * ramp + x.mean(dim=(2, 3, 4), keepdim=True) for k in range(CLASSES)], 1
    )


def slab_logits(
    image, roi, overlap, half=False, starts="fixed", arrays=None, target=None, mode="gaussian", sigma=0.125, net=network
):
    """All logits, put together from finished boxes; and how often each voxel was given."""
    arrays = arrays or TorchArrays(torch.device("cpu"))
    shape = tuple(image.shape[2:])
    layout = SlabLayout.of(window_grid(shape, roi, overlap, starts), half)
    array = image[0].numpy()
    logits = (
        arrays.from_numpy(net(torch.from_numpy(layout.windows.cut(array, c))[None])[0].numpy())
        for c in layout.corners()
    )
    weight = arrays.from_numpy(importance_map(roi, mode, sigma))
    blocks = blend(layout, logits, weight, CLASSES, arrays, competing=CLASSES)
    target = target or shape
    found, times = np.full((CLASSES, *target), np.nan, np.float32), np.zeros(target, int)
    for box in Resampler(shape, target, CLASSES, arrays).boxes(blocks):
        times[box.place] += 1
        for chunk in box.chunks:
            found[(slice(chunk.first, chunk.first + len(chunk.logits)), *box.place)] = arrays.to_numpy(chunk.logits)
    return found, times


def naive_logits(image, roi, overlap, starts="fixed", target=None):
    logits = sliding_window(image, network, roi, overlap, starts=starts)
    if target is not None:
        logits = torch.nn.functional.interpolate(logits, size=target, mode="trilinear", align_corners=False)
    return logits[0].numpy()


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.floats(0, 0.85),
    st.sampled_from(["fixed", "even"]),
)
def test_fp32_slabs_give_the_very_sums_of_the_plain_way(shape, roi, overlap, starts):
    image = smooth_image(shape)
    found, times = slab_logits(image, roi, overlap, starts=starts)
    assert (times == 1).all()
    np.testing.assert_allclose(found, naive_logits(image, roi, overlap, starts), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 16)] * 3),
    st.tuples(*[st.integers(2, 9)] * 3),
    st.tuples(*[st.integers(1, 30)] * 3),
    st.floats(0, 0.8),
)
def test_every_voxel_of_another_grid_is_given_once_with_interpolated_logits(shape, roi, target, overlap):
    image = smooth_image(shape)
    found, times = slab_logits(image, roi, overlap, target=target)
    assert (times == 1).all()
    np.testing.assert_allclose(found, naive_logits(image, roi, overlap, target=target), atol=2e-5)


@pytest.mark.parametrize("target", [None, (75, 40, 52), (31, 60, 40)])
def test_labels_in_fp32_equal_the_plain_way_in_every_voxel(target):
    image = smooth_image((60, 41, 47))
    found, _ = slab_logits(image, (16, 16, 16), 0.5, target=target)
    assert (found.argmax(0) == naive_logits(image, (16, 16, 16), 0.5, target=target).argmax(0)).all()


@pytest.mark.parametrize("target", [None, (75, 60, 52)])
def test_labels_in_half_precision_equal_the_plain_way_in_9999_of_10000_voxels(target):
    image = smooth_image((60, 61, 47), seed=3)
    found, times = slab_logits(image, (16, 16, 16), 0.5, half=True, target=target)
    expected = naive_logits(image, (16, 16, 16), 0.5, target=target).argmax(0)
    assert (times == 1).all()
    assert len(np.unique(expected)) == CLASSES
    assert (found.argmax(0) == expected).mean() >= 0.9999


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.integers(3, 18)] * 3),
    st.tuples(*[st.integers(2, 9)] * 3),
    st.floats(0, 0.75),
    st.booleans(),
    st.sampled_from([("gaussian", 0.125), ("gaussian", 0.3), ("constant", 0.125)]),
)
def test_random_logits_are_blended_as_monai_blends_them(shape, roi, overlap, half, weighting):
    """fp32 to 1e-5. Half precision keeps differences to the largest logit, so those are compared, and rounds them by up
    to 2⁻¹¹ each time a row of windows is put away."""
    image = smooth_image(shape, seed=7)
    mode, sigma = weighting
    expected = sliding_window_inference(image, roi, 1, network, overlap, mode=mode, sigma_scale=sigma)[0].numpy()
    found, _ = slab_logits(image, roi, overlap, half=half, mode=mode, sigma=sigma)
    if not half:
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
        return
    found, expected = found - found.max(axis=0), expected - expected.max(axis=0)
    rows = np.prod([len(starts) for starts in window_grid(shape, roi, overlap).starts[:2]])
    covering = min(rows, 2 * np.prod([np.ceil(r / max(int(r * (1 - overlap)), 1)) for r in roi[:2]]))
    np.testing.assert_allclose(found, expected, atol=2**-11 * covering * np.abs(expected).max() + 1e-5)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.floats(0, 0.85),
    st.sampled_from(["gaussian", "constant"]),
)
def test_a_constant_stays_constant_whatever_the_size(shape, roi, overlap, mode):
    """Whatever weights voxels get from however many windows, they are divided by their sum."""

    def same(x):
        return torch.full((1, CLASSES, *x.shape[2:]), 7.25)

    found, _ = slab_logits(smooth_image(shape), roi, overlap, mode=mode, net=same)
    np.testing.assert_allclose(found, 7.25, rtol=1e-5)


@pytest.mark.parametrize("arrays", [NumpyArrays(), TorchArrays(torch.device("cpu"))])
def test_the_first_of_equal_logits_wins_also_channel_group_by_group(arrays):
    values = np.array([[1, 5, 2], [3, 5, 2], [3, 4, 2], [0, 5, 7]], np.float32)
    largest, index = arrays.running_argmax(arrays.from_numpy(values))
    assert arrays.to_numpy(index).tolist() == [1, 0, 3]
    assert arrays.to_numpy(largest).tolist() == [3, 5, 7]
    leading = arrays.running_argmax(arrays.from_numpy(values[:2]))
    assert arrays.to_numpy(arrays.running_argmax(arrays.from_numpy(values[2:]), 2, leading)[1]).tolist() == [1, 0, 3]


def test_numpy_gives_what_torch_gives():
    image = smooth_image((20, 11, 17))
    with_torch, _ = slab_logits(image, (8, 8, 8), 0.5, target=(13, 22, 17))
    with_numpy, _ = slab_logits(image, (8, 8, 8), 0.5, target=(13, 22, 17), arrays=NumpyArrays())
    np.testing.assert_allclose(with_numpy, with_torch, atol=1e-5)


def test_a_pulled_back_last_layer_hands_on_no_more_than_half_a_window():
    windows = window_grid((800, 512, 512), (96, 96, 96), 0.5)
    assert windows.starts[0][-2:] == (672, 704)  # 704 lies 32 behind 672: they share 64 planes
    assert SlabLayout.of(windows, half=False).store_shapes()[0] == (64, 512, 512)
    layer, band, tile = SlabLayout.of(windows, half=True).store_shapes()
    assert layer == (48, 512, 512)
    assert tile == (128, 96, 96)
    assert band == (128, 64, 512)


def test_sampling_reaches_each_target_with_the_voxel_above_it():
    axis = AxisSampling.between(4, 8)  # targets at -0.25 (clamped to 0), 0.25, 0.75, 1.25, …, 3.25 (clamped to 3)
    assert axis.high.tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    assert axis.reached(0, 2) == slice(0, 3)
    assert axis.reached(2, 4) == slice(3, 8)
    assert AxisSampling.between(5, 5).is_identity
