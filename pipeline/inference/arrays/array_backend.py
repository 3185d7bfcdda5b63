"""The few array operations that blending needs, on numpy or torch, so that a backend without torch imports none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = Any
"""A numpy array or a torch tensor: both slice, assign, add and compare alike."""

Leading = tuple[Array, Array]
"""The largest values so far, and the channels that have them (whole numbers of any type)."""

_CACHE_BYTES = 2**20
"""What a core has as a cache of its own, or about that."""


def cache_pieces(voxels: int) -> int:
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
