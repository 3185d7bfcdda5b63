"""Where patches lie and how they are cut: a pure function of seed, step and position in the batch.

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
from pipeline.sampling.to_device import to_device

NO_MARGIN: Shape = (0, 0, 0)
Box = tuple[slice, ...]
# torch computes with uint8, but hardly with larger unsigned types. Bytes of a stored type to one that holds it.
_SIGNED = {2: torch.int32, 4: torch.int64, 8: torch.int64}


class Cases(Protocol):
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


@dataclass(frozen=True)
class PatchBatch:
    """Images, labels (indices as stored; uint8, or signed where that does not hold them) and where they come from."""

    image_BCXYZ: torch.Tensor
    label_BXYZ: torch.Tensor
    places: tuple[PatchLocation, ...]


@dataclass(frozen=True)
class PatchWithMargin:
    """A patch with what lies around it: image (C, X, Y, Z), label (X, Y, Z), and where the patch begins in them."""

    image: torch.Tensor
    label: torch.Tensor
    first: Shape

    def to(self, device: torch.device) -> PatchWithMargin:
        """The same on the device."""
        return PatchWithMargin(to_device(self.image, device), to_device(self.label, device), self.first)


def draw_batch(
    store: Cases, ids: Sequence[str], patch_size: Shape, batch_size: int, seed: int, step: int, oversample: float = 0.33
) -> PatchBatch:
    """The batch of `step`: arguments as in `draw_location`."""
    return cut_batch(store, draw_locations(store, ids, patch_size, batch_size, seed, step, oversample), patch_size)


def draw_locations(
    store: Cases,
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
    store: Cases,
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


def cut_batch(
    store: Cases, places: Sequence[PatchLocation], patch_size: Shape, margin: Shape = NO_MARGIN
) -> PatchBatch:
    """Cuts patches with the same margin, as `cut_patch` does."""
    size = [n + 2 * m for n, m in zip(patch_size, margin, strict=True)]
    one, its_label = (torch.as_tensor(array) for array in (store.image(places[0].case), store.label(places[0].case)))
    image = one.new_empty((len(places), len(one), *size))
    label = its_label.new_empty((len(places), *size), dtype=_label_type(its_label))
    for b, place in enumerate(places):
        _cut_into(image[b], label[b], store, place, patch_size, margin)
    return PatchBatch(image, label, tuple(places))


def cut_patch(
    store: Cases, place: PatchLocation, patch_size: Shape, margin: Shape = NO_MARGIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (C, X, Y, Z) and label (X, Y, Z) of a patch, `margin` voxels more on every side; only they are read.

    They are on the device of the store. Along an axis on which the image is smaller than the patch, it is filled up
    with 0, as at inference. Where only the margin reaches beyond the image, the image's edge is repeated.
    """
    batch = cut_batch(store, [place], patch_size, margin)
    return batch.image_BCXYZ[0], batch.label_BXYZ[0]


def _cut_into(
    image: torch.Tensor, label: torch.Tensor, store: Cases, place: PatchLocation, patch_size: Shape, margin: Shape
) -> None:
    shape, size = store.shape(place.case), tuple(label.shape)
    source, target = _overlap(place.start, shape, size, margin)
    image[(slice(None), *target)] = torch.as_tensor(store.image(place.case))[(slice(None), *source)]
    label[target] = torch.as_tensor(store.label(place.case))[source]
    for axis, (along, n, length) in enumerate(zip(target, shape, patch_size, strict=True)):
        _fill(image, axis + 1, along, repeat=n >= length)
        _fill(label, axis, along, repeat=n >= length)


def cut_with_margin(
    store: Cases, place: PatchLocation, patch_size: Shape, margin: Shape = NO_MARGIN
) -> PatchWithMargin:
    """What `cut_patch` cuts, as views into the store that read nothing yet and end where the image ends.

    A copy where that cannot be: the image is smaller than the patch, or torch hardly computes with the label's type.
    """
    shape = store.shape(place.case)
    if any(n < length for n, length in zip(shape, patch_size, strict=True)):
        return PatchWithMargin(*cut_patch(store, place, patch_size, margin), margin)
    image, label = torch.as_tensor(store.image(place.case)), torch.as_tensor(store.label(place.case))
    size = tuple(n + 2 * m for n, m in zip(patch_size, margin, strict=True))
    source, _ = _overlap(place.start, shape, size, margin)
    x, y, z = (first - along.start for first, along in zip(place.start, source, strict=True))
    label = label[source]
    return PatchWithMargin(image[(slice(None), *source)], label.to(_label_type(label)), (x, y, z))


def _label_type(label: torch.Tensor) -> torch.dtype:
    """What labels are cut as."""
    return _SIGNED.get(label.itemsize, torch.uint8)


def _fill(patch: torch.Tensor, axis: int, inner: slice, repeat: bool) -> None:
    """Fills what lies before and behind `inner` along one axis: with the edge, or with 0."""
    if inner.start == 0 and inner.stop == patch.shape[axis]:
        return
    view = patch.movedim(axis, 0)
    if inner.start > 0:
        view[: inner.start] = view[inner.start] if repeat else 0
    if inner.stop < len(view):
        view[inner.stop :] = view[inner.stop - 1] if repeat else 0


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


def _overlap(start: Shape, shape: Shape, size: tuple[int, ...], margin: Shape) -> tuple[Box, Box]:
    """The part of the image that a patch with its margin covers, and where it lies in the patch."""
    source: list[slice] = []
    target: list[slice] = []
    for first, n, length, extra in zip(start, shape, size, margin, strict=True):
        begin = first - extra
        inner = slice(max(begin, 0), min(begin + length, n))
        source.append(inner)
        target.append(slice(inner.start - begin, inner.stop - begin))
    return tuple(source), tuple(target)
