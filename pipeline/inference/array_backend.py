"""The few array operations that blending needs, on numpy or torch, so that a backend without torch imports none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = Any
"""A numpy array or a torch tensor: both slice, assign, add and compare alike."""

Leading = tuple[Array, Array]
"""The largest values so far, and the channels that have them (whole numbers of any type)."""

_CACHE_BYTES = 2**20
"""What a core has as a cache of its own, or about that."""


def _of_cache(voxels: int) -> int:
    return max(_CACHE_BYTES // (4 * max(voxels, 1)), 1)


class Arrays(Protocol):
    """Where arrays live and what slicing alone cannot do. The class axis is the first."""

    def free_gib(self) -> float | None:
        """Free memory where these arrays live; None where that is the machine's own."""

    def forget_peak(self) -> None:
        """Makes `peak_gib` count from now on."""

    def peak_gib(self) -> float | None:
        """What was taken at the most since `forget_peak` beside what is held now, where these arrays live; None where
        that is the machine's own memory."""

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        """Uninitialised fp32, or fp16 where `half`."""

    def from_numpy(self, array: NDArray) -> Array:
        """A numpy array as one of this kind (shared where possible)."""

    def to_numpy(self, array: Array) -> NDArray:
        """One of this kind as a numpy array."""

    def channels_per_chunk(self, voxels: int) -> int:
        """How many channels of so many voxels to take through several steps at once: as many as a cache holds."""

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        """total (K, …) += values (K, …) · weight (…), in fp32."""

    def largest(self, values: Array) -> Array:
        """The largest value over the first axis."""

    def running_argmax(self, values: Array, first: int = 0, leading: Leading | None = None) -> Leading:
        """The largest value over the first axis, and the first index that has it, counted from `first` on.

        leading: what earlier channels had; it is gone on from, and may be overwritten.
        """

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:
        """values[low]·(1 − fraction) + values[high]·fraction along `axis`."""

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        """A view with the axes in another order."""


class NumpyArrays:
    """Arrays of numpy."""

    def free_gib(self) -> float | None:
        return None

    def forget_peak(self) -> None:
        pass

    def peak_gib(self) -> float | None:
        return None

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        return np.empty(tuple(shape), np.float16 if half else np.float32)

    def from_numpy(self, array: NDArray) -> Array:
        return array

    def to_numpy(self, array: Array) -> NDArray:
        return array

    def channels_per_chunk(self, voxels: int) -> int:
        return _of_cache(voxels)

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        for one, value in zip(total, values, strict=True):  # class by class: no temporary of the whole
            one += value * weight

    def largest(self, values: Array) -> Array:
        return values.max(axis=0)

    def running_argmax(self, values: Array, first: int = 0, leading: Leading | None = None) -> Leading:
        largest, index = leading or (values[0].copy(), np.full(values.shape[1:], first, np.int32))
        for k, value in enumerate(values, start=first):  # argmax over the first axis would copy all, turned round
            index[value > largest] = k
            np.maximum(largest, value, out=largest)
        return largest, index

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:
        share = fraction.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        lower, upper = values.take(low, axis), values.take(high, axis)
        upper -= lower
        upper *= share
        upper += lower
        return upper

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        return array.transpose(axes)


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of a GPU's memory: free to everybody, kept by torch, of that in use now, and in use at the most."""

    free: int
    reserved: int
    allocated: int
    peak: int

    @classmethod
    def of(cls, device: torch.device) -> GpuMemory:
        """What torch says of `device`; the peak is since `forget_peak`."""
        from torch import cuda

        taken = cuda.memory_reserved(device), cuda.memory_allocated(device), cuda.max_memory_allocated(device)
        return cls(cuda.mem_get_info(device)[0], *taken)

    @property
    def free_gib(self) -> float:
        """What may still be taken: what torch keeps unused, of an earlier model perhaps, is free too."""
        return (self.free + self.reserved - self.allocated) / 2**30

    @property
    def peak_gib(self) -> float:
        """What was taken at the most beside what is held now."""
        return (self.peak - self.allocated) / 2**30


class TorchArrays:
    """Tensors of torch on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free_gib(self) -> float | None:
        return GpuMemory.of(self.device).free_gib if self.device.type == "cuda" else None

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> float | None:
        return GpuMemory.of(self.device).peak_gib if self.device.type == "cuda" else None

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        import torch

        return torch.empty(tuple(shape), dtype=torch.float16 if half else torch.float32, device=self.device)

    def from_numpy(self, array: NDArray) -> Array:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def to_numpy(self, array: Array) -> NDArray:
        return array.cpu().numpy()

    def channels_per_chunk(self, voxels: int) -> int:
        return _of_cache(voxels) if self.device.type == "cpu" else 2**31

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        total.addcmul_(values, weight)

    def largest(self, values: Array) -> Array:
        if self.device.type != "cpu":
            return values.amax(dim=0)
        import torch

        largest = values[0].clone()
        for value in values[1:]:
            torch.maximum(largest, value, out=largest)
        return largest

    def running_argmax(self, values: Array, first: int = 0, leading: Leading | None = None) -> Leading:
        import torch

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
        import torch

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
