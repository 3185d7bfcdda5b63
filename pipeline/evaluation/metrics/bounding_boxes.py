"""Where each structure lies: metrics only need its bounding box, and finding all boxes takes one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]

_SLAB_VOXELS = 2**18
_BITS = 64


def structure_boxes(
    label_maps: Sequence[NDArray[np.integer]], structures: Mapping[str, tuple[int, ...]]
) -> dict[str, Box]:
    """The smallest box that holds a structure in all label maps (of one shape); an empty box where it is in none."""
    names = list(structures)
    boxes: dict[str, Box] = {}
    for start in range(0, len(names), _BITS):
        some = {name: structures[name] for name in names[start : start + _BITS]}
        profiles = _profiles(label_maps, some)
        for bit, name in enumerate(some):
            boxes[name] = tuple(_extent(profile >> np.uint64(bit) & np.uint64(1)) for profile in profiles)
    return boxes


def union_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes, empty ones left out; an empty one around none."""
    full = [box for box in boxes if box[0].stop > box[0].start]
    if not full:
        return boxes[0]
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*full, strict=True))


def slabs(shape: Sequence[int], axis: int, voxels: int) -> list[Box]:
    """Boxes of about `voxels` voxels that cut a volume along one axis."""
    step = max(1, voxels * shape[axis] // max(1, int(np.prod(shape))))
    return [
        tuple(slice(start, start + step) if a == axis else slice(None) for a in range(len(shape)))
        for start in range(0, shape[axis], step)
    ]


def slowest_axis(array: NDArray[np.integer]) -> int:
    """The axis along which slabs are contiguous in memory."""
    return int(np.argmax(np.abs(array.strides)))


def _profiles(
    label_maps: Sequence[NDArray[np.integer]], structures: Mapping[str, tuple[int, ...]]
) -> list[NDArray[np.uint64]]:
    """For each axis and position on it, which structures (as bits) occur there."""
    shape = label_maps[0].shape
    bits_of = np.zeros(max(value for values in structures.values() for value in values) + 2, np.uint64)
    for bit, values in enumerate(structures.values()):
        bits_of[list(values)] |= np.uint64(1) << np.uint64(bit)
    bits_of = bits_of.astype(np.min_scalar_type(2 ** len(structures) - 1))
    profiles = [np.zeros(n, np.uint64) for n in shape]
    for labels in label_maps:
        for slab in slabs(shape, slowest_axis(labels), _SLAB_VOXELS):
            present = bits_of.take(labels[slab], mode="clip")  # the last entry stands for every larger value
            for axis in range(labels.ndim):
                others = tuple(a for a in range(labels.ndim) if a != axis)
                profiles[axis][slab[axis]] |= np.bitwise_or.reduce(present, axis=others)
    return profiles


def _extent(occupied: NDArray[np.uint64]) -> slice:
    positions = np.flatnonzero(occupied)
    return slice(int(positions[0]), int(positions[-1]) + 1) if len(positions) else slice(0, 0)
