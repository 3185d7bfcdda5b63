"""The few array operations that blending needs, on numpy or torch, so that a backend without torch imports none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = Any
"""A numpy array or a torch tensor: both slice, assign, add and compare alike."""


class Arrays(Protocol):
    """Where arrays live and what slicing alone cannot do. The class axis is the first."""

    def free_gib(self) -> float | None:
        """Free memory where these arrays live; None where that is the machine's own."""

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        """Uninitialised fp32, or fp16 where `half`."""

    def take(self, array: NDArray) -> Array:
        """A numpy array as one of this kind (shared where possible)."""

    def give(self, array: Array) -> NDArray:
        """One of this kind as a numpy array."""

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        """total (K, …) += values (K, …) · weight (…), in fp32."""

    def best(self, values: Array) -> tuple[Array, Array]:
        """The largest value over the first axis, and the first index that has it."""

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:
        """values[low]·(1 − fraction) + values[high]·fraction along `axis`."""

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        """A view with the axes in another order."""


class NumpyArrays:
    """Arrays of numpy."""

    def free_gib(self) -> float | None:
        return None

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        return np.empty(tuple(shape), np.float16 if half else np.float32)

    def take(self, array: NDArray) -> Array:
        return array

    def give(self, array: Array) -> NDArray:
        return array

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        for one, value in zip(total, values, strict=True):  # class by class: no temporary of the whole
            one += value * weight

    def best(self, values: Array) -> tuple[Array, Array]:
        return values.max(axis=0), values.argmax(axis=0)

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:
        share = fraction.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        lower, upper = values.take(low, axis), values.take(high, axis)
        upper -= lower
        upper *= share
        upper += lower
        return upper

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        return array.transpose(axes)


class TorchArrays:
    """Tensors of torch on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free_gib(self) -> float | None:
        if self.device.type != "cuda":
            return None
        import torch

        return torch.cuda.mem_get_info(self.device)[0] / 2**30

    def empty(self, shape: Sequence[int], half: bool = False) -> Array:
        import torch

        return torch.empty(tuple(shape), dtype=torch.float16 if half else torch.float32, device=self.device)

    def take(self, array: NDArray) -> Array:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def give(self, array: Array) -> NDArray:
        return array.cpu().numpy()

    def add_product(self, total: Array, values: Array, weight: Array) -> None:
        total.addcmul_(values, weight)

    def best(self, values: Array) -> tuple[Array, Array]:
        return values.max(dim=0)

    def lerp(self, values: Array, axis: int, low: NDArray, high: NDArray, fraction: NDArray) -> Array:
        import torch

        share = self.take(fraction.astype(np.float32)).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        lower, upper = values.index_select(axis, self.take(low)), values.index_select(axis, self.take(high))
        return torch.addcmul(upper.mul_(share), lower, 1 - share)

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        return array.permute(tuple(axes))
