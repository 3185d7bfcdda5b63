"""Values between voxels, against torch's own three-dimensional sampling and scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional as F

from pipeline.sampling.augmentation.grid_sample import SamplingGrid

SHAPES = st.tuples(*[st.one_of(st.just(1), st.integers(1, 9))] * 3)


def volume_and_places(shape: tuple, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two channels, and places inside and outside of them."""
    rng = np.random.default_rng(seed)
    spread = np.array(shape).reshape(3, 1, 1, 1) + 4
    places = rng.uniform(0, 1, (3, 4, 5, 6)) * spread - 2
    return torch.from_numpy(rng.normal(size=(2, *shape)).astype(np.float32)), torch.from_numpy(places).float()


@given(SHAPES, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_linear_equals_scipy_for_every_shape(shape: tuple, seed: int) -> None:
    volume, places = volume_and_places(shape, seed)
    found = SamplingGrid(places, shape).linear(volume)
    for channel, result in zip(volume, found, strict=True):
        expected = ndimage.map_coordinates(channel.double().numpy(), places.double().numpy(), order=1, mode="nearest")
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)


@given(SHAPES, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_nearest_equals_rounding_by_hand(shape: tuple, seed: int) -> None:
    volume, places = volume_and_places(shape, seed)
    label = (volume[0] * 50).to(torch.int32)
    index = [np.clip(np.rint(place.numpy()), 0, n - 1).astype(int) for place, n in zip(places, shape, strict=True)]
    assert np.array_equal(SamplingGrid(places, shape).nearest(label).numpy(), label.numpy()[tuple(index)])


def test_volumes_too_large_for_float32_indices_are_indexed_in_whole_numbers() -> None:
    volume, at = volume_and_places((7, 6, 5), 2)
    label = (volume[0] * 50).to(torch.int32)
    small = SamplingGrid(at, (7, 6, 5)).nearest(label)
    assert torch.equal(SamplingGrid(at, (7, 6, 5), exact=0).nearest(label), small)
    # Beyond 2**24 a float32 has lost the last bit: an odd voxel would be taken from its neighbour.
    long = torch.arange(2**24 + 8, dtype=torch.int32).view(1, 1, -1) % 251
    last = torch.tensor([0.0, 0.0, 2.0**24 - 1]).view(3, 1, 1, 1)
    assert SamplingGrid(last, tuple(long.shape)).nearest(long).item() == (2**24 - 1) % 251


@given(SHAPES, st.integers(0, 1000), st.tuples(*[st.integers(0, 3)] * 3), st.permutations([1, 2, 3]))
@settings(max_examples=80, deadline=None)
def test_a_view_is_as_good_as_a_copy(shape: tuple, seed: int, around: tuple, order: list) -> None:
    """A part of a larger volume, whatever the order of its axes in memory."""
    rng = np.random.default_rng(seed)
    larger = torch.from_numpy(rng.normal(size=(2, *(n + 2 * m for n, m in zip(shape, around, strict=True)))))
    inverse = [1 + order.index(axis) for axis in (1, 2, 3)]
    larger = larger.float().permute(0, *order).contiguous().permute(0, *inverse)
    view = larger[:, *(slice(m, m + n) for n, m in zip(shape, around, strict=True))]
    at = SamplingGrid(volume_and_places(shape, seed)[1], shape)
    torch.testing.assert_close(at.linear(view), at.linear(view.contiguous()), atol=1e-4, rtol=0)
    assert torch.equal(at.nearest(view[0]), at.nearest(view[0].contiguous()))


def test_whole_voxels_are_given_back() -> None:
    volume, _ = volume_and_places((7, 6, 5), 0)
    places = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in (7, 6, 5)), indexing="ij"))
    torch.testing.assert_close(SamplingGrid(places, (7, 6, 5)).linear(volume), volume, atol=1e-5, rtol=0)
    assert torch.equal(SamplingGrid(places, (7, 6, 5)).nearest(volume[0]), volume[0])


@pytest.mark.parametrize("n", [40, 160])
def test_rounding_grows_with_the_picture_as_the_docstring_says(n: int) -> None:
    """Against torch's three-dimensional sampling in double precision; the slope of the image times the misplacement."""
    ramp = torch.arange(n, dtype=torch.float32)
    volume = (ramp[:, None, None] + 2 * ramp[:, None] + 3 * ramp).expand(1, n, n, n)
    rng = np.random.default_rng(0)
    places = torch.from_numpy(rng.uniform(0, n - 1, (3, 20, 20, 20)))
    grid = (places * (2 / (n - 1)) - 1).flip(0).permute(1, 2, 3, 0)[None]
    exact = F.grid_sample(volume[None].double(), grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
    found = SamplingGrid(places.float(), (n, n, n)).linear(volume)
    assert (found - exact).abs().max() < 6 * n * n * 1e-7 + 6 * n * 1e-6


def test_the_path_of_a_gpu_gives_the_same() -> None:
    volume, places = volume_and_places((7, 6, 5), 1)
    at = SamplingGrid(places, (7, 6, 5))
    on_gpu = F.grid_sample(
        volume[None], at.from_minus_one[None], mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    torch.testing.assert_close(at.linear(volume), on_gpu, atol=1e-4, rtol=0)
