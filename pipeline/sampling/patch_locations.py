"""Random locations of training patches: a pure function of seed, step and position in the batch.

The cases of a fold are gone through epoch by epoch, each in a new order. A share of the patches is centred on a voxel
of a structure, every structure of the case as often as the others; the rest lie anywhere. A patch lies inside its
image; along an axis on which the image is smaller, the image lies inside the patch, which is filled up with 0.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.rng import RandomPurpose, generator
from pipeline.io.geometry import Shape


class PatchSource(Protocol):
    """What patches are drawn from, for instance a `PatchStore`: image (C, X, Y, Z) float32 and label (X, Y, Z)."""

    def shape(self, case: str) -> Shape: ...
    def image(self, case: str) -> NDArray[np.float32] | torch.Tensor: ...
    def label(self, case: str) -> NDArray | torch.Tensor: ...
    def locations(self, case: str) -> Mapping[int, NDArray[np.int32]]: ...


@dataclass(frozen=True)
class PatchLocation:
    """A patch's case and first voxel (negative where the image is smaller than the patch).

    structure: what it is centred on, None for a patch anywhere.
    """

    case: str
    start: Shape
    structure: int | None = None


def draw_locations(
    store: PatchSource,
    ids: Sequence[str],
    patch_size: Shape,
    batch_size: int,
    seed: int,
    step: int,
    oversample: float = 0.33,
    structure_weights: Sequence[float] | None = None,
) -> tuple[PatchLocation, ...]:
    """The places of the batch of `step`: arguments as in `draw_location`."""
    return tuple(
        draw_location(store, ids, patch_size, seed, step * batch_size + position, oversample, structure_weights)
        for position in range(batch_size)
    )


def draw_location(
    store: PatchSource,
    ids: Sequence[str],
    patch_size: Shape,
    seed: int,
    index: int,
    oversample: float = 0.33,
    structure_weights: Sequence[float] | None = None,
) -> PatchLocation:
    """The place of the patch number `index`, counted over all steps.

    oversample: the share of patches that are centred on a structure, met exactly over any stretch of them (cases
    without any structure aside). structure_weights: how often each structure is chosen among those of the case.
    """
    case = ids[_epoch_order(seed, index // len(ids), len(ids))[index % len(ids)]]
    which, voxel, *along = generator(seed, RandomPurpose.PLACE, index).random(5).tolist()
    # The smallest and the largest first voxel of each axis.
    limits = [(min(n - m, 0), max(n - m, 0)) for n, m in zip(store.shape(case), patch_size, strict=True)]
    structure = None
    if math.floor((index + 1) * oversample) > math.floor(index * oversample):
        structure = _structure(which, sorted(store.locations(case)), structure_weights)
    if structure is None:
        x, y, z = (low + int(number * (high - low + 1)) for number, (low, high) in zip(along, limits, strict=True))
    else:
        voxels = store.locations(case)[structure]
        centre = voxels[int(voxel * len(voxels))].tolist()
        x, y, z = (
            min(max(at - m // 2, low), high) for at, m, (low, high) in zip(centre, patch_size, limits, strict=True)
        )
    return PatchLocation(case, (x, y, z), structure)


def _structure(number: float, present: Sequence[int], weights: Sequence[float] | None) -> int | None:
    """One of the structures that are present, by a number of 0..1; None where there is none to choose."""
    chances = [1.0 if weights is None else weights[structure - 1] for structure in present]
    reached = list(accumulate(chances))
    if not reached or reached[-1] == 0:
        return None
    return present[bisect_right(reached, number * reached[-1])]


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, cases: int) -> NDArray[np.int64]:
    return generator(seed, RandomPurpose.EPOCH_ORDER, epoch).permutation(cases)
