"""Array operations of blending on torch tensors, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.inference.arrays.array_backend import Array, GpuMemory, Leading, cache_pieces


class TorchArrays:
    """Tensors of torch on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free_gib(self) -> float | None:
        return GpuMemory.of(self.device).free_gib if self.device.type == "cuda" else None

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> float | None:
        return GpuMemory.of(self.device).peak_gib if self.device.type == "cuda" else None

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        return torch.empty(tuple(shape), dtype=torch.float16 if half else torch.float32, device=self.device)

    def from_numpy(self, array: NDArray) -> Array:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def to_numpy(self, array: Array) -> NDArray:
        return array.cpu().numpy()

    def channels_per_chunk(self, voxels: int) -> int:
        return cache_pieces(voxels) if self.device.type == "cpu" else 2**31

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        total.addcmul_(values, weight)

    def largest(self, values: Array) -> Array:
        if self.device.type != "cpu":
            return values.amax(dim=0)

        largest = values[0].clone()
        for value in values[1:]:
            torch.maximum(largest, value, out=largest)
        return largest

    def running_argmax(self, values: Array, first: int = 0, leading: Leading | None = None) -> Leading:
        if self.device.type != "cpu":
            largest, index = values.max(dim=0)
            if leading is None:
                return largest, index + first
            better = largest > leading[0]
            return torch.where(better, largest, leading[0]), torch.where(better, index + first, leading[1])
        # max(dim=0) jumps from channel to channel; and of comparisons only those whose result is fp32 are vectorised
        largest, index = leading or (values[0].clone(), torch.full(values.shape[1:], float(first)))
        better = torch.empty_like(index)
        for k, value in enumerate(values, start=first):
            torch.gt(value, largest, out=better)
            torch.maximum(index, better.mul_(k), out=index)
            torch.maximum(largest, value, out=largest)
        return largest, index

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:

        share = self.from_numpy(fraction.astype(np.float32)).reshape(
            [-1 if a == axis else 1 for a in range(values.ndim)]
        )
        lower, upper = (self._picked(values, axis, self.from_numpy(places)) for places in (low, high))
        return torch.addcmul(upper.mul_(share), lower, 1 - share)

    def _picked(self, values: Array, axis: int, places: Array) -> Array:
        if axis < values.ndim - 1:
            return values.index_select(axis, places)
        return values.gather(axis, places.expand(*values.shape[:-1], -1))  # twice as fast where single values move

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        return array.permute(tuple(axes))
