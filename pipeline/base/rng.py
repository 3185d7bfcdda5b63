"""Random numbers as a pure function of what they are for, so that no generator's state has to be carried along.

Philox is counter-based: seed and purpose are its key, step and position its counter. Any number of workers, and a
run that was resumed, draw the same.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class RandomPurpose(IntEnum):
    """What numbers are drawn for; two purposes never share a stream."""

    EPOCH_ORDER = 1
    PLACE = 2
    AUGMENT = 3
    LOCATIONS = 4
    FOLDS = 5
    PREVIEW = 6


def generator(seed: int, purpose: RandomPurpose, step: int = 0, position: int = 0) -> np.random.Generator:
    """The generator that belongs to these numbers, always in the same state."""
    return np.random.Generator(np.random.Philox(key=[seed, int(purpose)], counter=[0, 0, position, step]))


def uniform_between(number: float, limits: tuple[float, float]) -> float:
    """A number of 0..1 moved into limits."""
    low, high = limits
    return low + (high - low) * number


def derive_seed(number: float) -> int:
    """A seed from a number of 0..1: all of its 53 bits."""
    return int(number * 2**53)
