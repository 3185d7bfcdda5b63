"""Holds the golden cases on sliding windows (W): numbers and a law from other libraries' test suites."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.inference.slab_blending import SlabLayout, blend
from pipeline.inference.sliding_window import importance_map, sliding_window, window_grid, window_starts

CASES = yaml.safe_load(Path(__file__).with_name("window_cases.yaml").read_text(encoding="utf-8"))
CPU = TorchArrays(torch.device("cpu"))


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_golden_case(case: dict[str, Any]) -> None:
    found = FUNCTIONS[case["function"]](**case["arguments"])
    np.testing.assert_allclose(found, array(case["expected"]), rtol=case.get("rtol", 2e-6), atol=case.get("atol", 1e-6))


# W05, test_buffers: whatever the buffers, y = 2x is blended to 2x, so max |x - y/2| < 1e-3.
@pytest.mark.parametrize("size", [(7, 5, 6), (16, 24, 10), (33, 20, 21)])
@pytest.mark.parametrize("roi", [(8, 8, 8), (5, 12, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("store", ["whole", "slab", "half"])
def test_w05_twice_is_twice_with_any_buffers(size, roi, overlap, store):
    """Half precision has its own tolerance: its 11 bits are off by up to 2⁻¹¹ each time that a sum is put away, which
    is after every row of windows that covers a voxel, in every layer."""
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(5))
    if store == "whole":
        blended = sliding_window(image, lambda x: 2 * x, roi, overlap, sw_batch_size=3)
    else:
        blended = moving_slab(image, roi, overlap, half=store == "half")
    times = [most_windows(n, r, overlap) for n, r in zip(size, roi, strict=True)]
    tolerance = 2**-11 * times[0] * times[1] if store == "half" else 1e-3
    assert float((image - blended / 2).abs().max()) < tolerance


def most_windows(size: int, roi: int, overlap: float) -> int:
    """How many windows cover the most covered voxel of an axis."""
    starts = window_starts(max(size, roi), roi, overlap)
    return max(sum(start <= voxel < start + roi for start in starts) for voxel in starts)


def moving_slab(image: torch.Tensor, roi: tuple[int, int, int], overlap: float, half: bool) -> torch.Tensor:
    """Blended by `pipeline.inference.slab_blending`, put together from its blocks."""
    layout = SlabLayout.of(window_grid(image.shape[2:], roi, overlap), half)
    logits = (2 * torch.from_numpy(layout.windows.cut(image[0].numpy(), corner)) for corner in layout.corners())
    blended = torch.full_like(image, torch.nan)
    for block in blend(layout, logits, CPU.from_numpy(importance_map(roi, "gaussian")), 1, CPU):
        box = tuple(slice(first, first + n) for first, n in zip(block.first, block.logits.shape[1:], strict=True))
        blended[(0, slice(None), *box)] = block.logits
    return blended


def array(description: dict[str, Any]) -> np.ndarray:
    """An array from its description in window_cases.yaml."""
    if "rows" in description:
        return np.array(description["rows"], np.float32)
    if "ones" in description:
        return np.full(description["ones"], description.get("times", 1), np.float32)
    shape = description["arange"]
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + description.get("plus", 0)


def blended(image: dict[str, Any], network: str, **settings: Any) -> np.ndarray:
    """One channel blended; in W03 every row of the answer is alike along its second axis."""
    return sliding_window(torch.from_numpy(array(image))[None, None], NETWORKS[network](), **settings)[0, 0].numpy()


def blended_at_stride(image: dict[str, Any], network: str, stride: int, **settings: Any) -> np.ndarray:
    """A network with an output at a coarser stride: blended on the image's grid, and read at its stride.

    MONAI blends such outputs on grids of their own; a constant is the same on both.
    """
    coarse = NETWORKS[network]()

    def network_on_the_images_grid(x: torch.Tensor) -> torch.Tensor:
        strided = coarse(x[..., ::stride, ::stride])
        return strided.repeat_interleave(stride, -1).repeat_interleave(stride, -2)

    found = sliding_window(torch.from_numpy(array(image))[None, None], network_on_the_images_grid, **settings)
    return found[0, 0, ::stride, ::stride].numpy()


def least_and_most_covered(image_shape: list[int], roi_size: list[int], overlap: float) -> list[int]:
    times = np.zeros(image_shape, int)
    for corner in window_grid(image_shape, roi_size, overlap).corners():
        times[tuple(slice(c, c + r) for c, r in zip(corner, roi_size, strict=True))] += 1
    return [int(times.min()), int(times.max())]


def plus_call():
    calls = itertools.count(2)
    return lambda x: x + next(calls)


NETWORKS = {
    "plus_one": lambda: lambda x: x + 1,
    "plus_two": lambda: lambda x: x + 2,
    "plus_three": lambda: lambda x: x + 3,
    "plus_own_sum": lambda: lambda x: x + x.sum(),
    "plus_call": plus_call,
}
FUNCTIONS = {
    "blended": blended,
    "blended_at_stride": blended_at_stride,
    "starts": lambda size, roi, overlap, starts="fixed": window_starts(size, roi, overlap, starts),
    "importance": lambda roi_size, mode, sigma_scale: importance_map(roi_size, mode, sigma_scale),
    "window_count": lambda image_shape, roi_size, overlap: window_grid(image_shape, roi_size, overlap).count,
    "least_and_most_covered": least_and_most_covered,
}
