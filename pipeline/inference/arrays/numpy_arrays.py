"""Array operations of blending on numpy arrays, for backends without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.arrays.array_backend import Array, Leading, cache_pieces


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
        return cache_pieces(voxels)

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
