"""Patches cut from images and labels, with a margin for augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.io.geometry import Shape
from pipeline.sampling.patch_locations import PatchLocation, PatchSource
from pipeline.sampling.tensor_to_device import to_device

Box = tuple[slice, ...]

NO_MARGIN: Shape = (0, 0, 0)
# torch computes with uint8, but hardly with larger unsigned types. Bytes of a stored type to one that holds it.
_SIGNED = {2: torch.int32, 4: torch.int64, 8: torch.int64}


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


def cut_batch(
    store: PatchSource, places: Sequence[PatchLocation], patch_size: Shape, margin: Shape = NO_MARGIN
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
    store: PatchSource, place: PatchLocation, patch_size: Shape, margin: Shape = NO_MARGIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (C, X, Y, Z) and label (X, Y, Z) of a patch, `margin` voxels more on every side; only they are read.

    They are on the device of the store. Along an axis on which the image is smaller than the patch, it is filled up
    with 0, as at inference. Where only the margin reaches beyond the image, the image's edge is repeated.
    """
    batch = cut_batch(store, [place], patch_size, margin)
    return batch.image_BCXYZ[0], batch.label_BXYZ[0]


def _cut_into(
    image: torch.Tensor, label: torch.Tensor, store: PatchSource, place: PatchLocation, patch_size: Shape, margin: Shape
) -> None:
    shape, size = store.shape(place.case), tuple(label.shape)
    source, target = _overlap(place.start, shape, size, margin)
    image[(slice(None), *target)] = torch.as_tensor(store.image(place.case))[(slice(None), *source)]
    label[target] = torch.as_tensor(store.label(place.case))[source]
    for axis, (along, n, length) in enumerate(zip(target, shape, patch_size, strict=True)):
        _fill(image, axis + 1, along, repeat=n >= length)
        _fill(label, axis, along, repeat=n >= length)


def cut_with_margin(
    store: PatchSource, place: PatchLocation, patch_size: Shape, margin: Shape = NO_MARGIN
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
