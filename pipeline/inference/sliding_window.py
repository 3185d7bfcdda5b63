"""Sliding windows: where they lie, how their voxels are weighted, and the plain way to blend them.

Starts, weights and padding are those of MONAI's `sliding_window_inference`; `even` starts are nnU-Net's. The plain way
holds all logits of a volume at once; `pipeline.inference.slab_blending` blends the same windows in bounded memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Starts = Literal["fixed", "even"]
Mode = Literal["gaussian", "constant"]
Index = tuple[int, ...]

_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class WindowGrid:
    """All windows over one image of any dimension. Starts are indices into the image after padding by `before`.

    An image smaller than the window is padded on both sides to its size (the odd voxel behind).
    """

    image_shape: Index
    roi_size: Index
    starts: tuple[Index, ...]
    before: Index

    @property
    def padded_shape(self) -> Index:
        """The shape that the windows cover."""
        return tuple(map(max, self.image_shape, self.roi_size))

    @property
    def count(self) -> int:
        """The number of windows."""
        return math.prod(map(len, self.starts))

    def corners(self) -> Iterator[Index]:
        """The first voxel of every window, the last axis moving fastest."""
        return itertools.product(*self.starts)

    def cut(self, image: NDArray, corner: Index, cval: float = 0.0) -> NDArray:
        """The window at `corner` of an image with leading axes: a view, or a copy filled up where it is padded."""
        wanted = [
            (start - before, start - before + roi)
            for start, before, roi in zip(corner, self.before, self.roi_size, strict=True)
        ]
        there = tuple(
            slice(max(first, 0), min(last, n)) for (first, last), n in zip(wanted, self.image_shape, strict=True)
        )
        lead = (slice(None),) * (image.ndim - len(there))
        inner = image[(*lead, *there)]
        if inner.shape[len(lead) :] == self.roi_size:
            return inner
        pad = [(have.start - first, last - have.stop) for have, (first, last) in zip(there, wanted, strict=True)]
        return np.pad(inner, [(0, 0)] * len(lead) + pad, constant_values=cval)


def window_grid(
    image_shape: Sequence[int], roi_size: Sequence[int], overlap: float, starts: Starts = "fixed"
) -> WindowGrid:
    """The windows of `roi_size` that cover an image with at least `overlap` (a share of the window, under 1)."""
    shape, roi = tuple(map(int, image_shape)), tuple(map(int, roi_size))
    if len(shape) != len(roi):
        raise AssertionError(f"windows {roi} do not fit an image {shape}")
    along = tuple(window_starts(max(n, r), r, overlap, starts) for n, r in zip(shape, roi, strict=True))
    before = tuple(max(r - n, 0) // 2 for n, r in zip(shape, roi, strict=True))
    return WindowGrid(shape, roi, along, before)


def window_starts(size: int, roi: int, overlap: float, starts: Starts = "fixed") -> Index:
    """First voxels of the windows along one axis, sorted, the last one at `size - roi`.

    fixed: constant steps of int(roi · (1 − overlap)), the last window pulled back. even: as many windows as that needs,
    spread evenly.
    """
    last = size - roi
    if last < 0:
        raise AssertionError(f"a window of {roi} is larger than {size}; pad first")
    if starts == "even":
        steps = math.ceil(last / (roi * (1 - overlap)))
        return tuple(sorted({int(np.rint(last * i / steps)) for i in range(steps + 1)})) if steps else (0,)
    step = max(int(roi * (1 - overlap)), 1)
    return tuple(min(start, last) for start in range(0, last + step, step)) if last else (0,)


def importance_map(roi_size: Sequence[int], mode: Mode, sigma_scale: float = 0.125) -> NDArray[np.float32]:
    """The weight of each voxel of a window: 1, or a Gaussian around its centre that is nowhere under 1/1000."""
    if mode == "constant":
        return np.ones(tuple(roi_size), np.float32)
    weight = np.ones((), np.float32)
    for n in roi_size:
        distance = np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)
        along = np.exp(distance**2 / np.float32(-2 * (n * sigma_scale) ** 2))
        weight = weight[..., None] * along
    return np.maximum(weight, max(float(weight.min()), _LEAST_WEIGHT)).astype(np.float32)


def sliding_window(
    image_BCXYZ: Tensor,
    network: Callable[[Tensor], Tensor],
    roi_size: Sequence[int],
    overlap: float = 0.5,
    mode: Mode = "gaussian",
    sigma_scale: float = 0.125,
    sw_batch_size: int = 4,
    starts: Starts = "fixed",
    cval: float = 0.0,
) -> Tensor:
    """Blended logits (B, K, X, Y, Z) in fp32 of whole images, all on the image's device.

    network: from windows (N, C, *roi_size) to logits (N, K, *roi_size). Equal to MONAI's `sliding_window_inference`
    to 1e-5. Holds K floats a voxel: the plain way, which the moving slab (`inference.slab`) is held to.
    """
    import torch
    from torch.nn.functional import pad

    windows = window_grid(image_BCXYZ.shape[2:], roi_size, overlap, starts)
    padding = [
        (before, padded - n - before)
        for n, padded, before in zip(windows.image_shape, windows.padded_shape, windows.before, strict=True)
    ]
    image = pad(image_BCXYZ, [side for axis in reversed(padding) for side in axis], value=cval)
    weight = torch.from_numpy(importance_map(windows.roi_size, mode, sigma_scale)).to(image.device)
    places = [
        (slice(b, b + 1), tuple(slice(c, c + r) for c, r in zip(corner, windows.roi_size, strict=True)))
        for b in range(image.shape[0])
        for corner in windows.corners()
    ]
    blended, weights = torch.zeros(()), torch.zeros((1, 1, *windows.padded_shape), device=image.device)
    for first in range(0, len(places), sw_batch_size):
        batch = places[first : first + sw_batch_size]
        logits = network(torch.cat([image[(b, slice(None), *box)] for b, box in batch])).float()
        if first == 0:
            blended = torch.zeros((image.shape[0], logits.shape[1], *windows.padded_shape), device=image.device)
        for (b, box), one in zip(batch, logits, strict=True):
            blended[(b, slice(None), *box)] += one * weight
            if b.start == 0:
                weights[(slice(None), slice(None), *box)] += weight
    blended /= weights
    inner = tuple(slice(before, n - after) for n, (before, after) in zip(windows.padded_shape, padding, strict=True))
    return blended[(slice(None), slice(None), *inner)]
