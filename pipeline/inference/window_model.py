"""The interface of a model that turns windows into logits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from numpy.typing import NDArray

from pipeline.inference.arrays.array_backend import Array, Arrays


class WindowModel(Protocol):
    """Anything that turns windows into logits, with torch or without."""

    @property
    def arrays(self) -> Arrays:
        """Where its logits live."""

    @property
    def backend(self) -> str:
        """What runs the networks, in words: the program, the device and the arithmetic."""

    @property
    def disagreement(self) -> bool:
        """Whether a channel after the classes says how much an ensemble's networks disagree."""

    def __call__(self, windows: NDArray) -> Array:
        """Windows (N, C, *roi) fp32 to logits (N, K, *roi) fp32."""

    def inference_context(self) -> AbstractContextManager[None]:
        """Entered around all work with the model and its arrays."""
