"""Blending windows over a volume while holding only what later windows still overlap.

Windows come in rows along the last axis, rows in layers along the first. What a window adds to a voxel is final once
no later window covers it, so three stores are enough: the `layer` (planes that the next layer overlaps), the `band`
(rows that the next row overlaps) and the `tile` (the window itself):

      first axis  ▼       ┌──────────────┐
      finished blocks     │▓▓▓▓▓▓▓▓▓▓▓▓▓▓│  given out as soon as they are final
                          │▓▓▓▓▓┌────┐:::│
      layer   ::::        │:::::│tile│:::│  only `kept` planes, half a window at overlap 0.5
                          │:::::└────┘   │
                          └──────────────┘
Sums are taken in fp32 in the tile and in the order of the plain way, so fp32 stores give its very sums. Half-precision
stores keep each voxel's logits as differences to its largest, which no argmax or softmax notices and which makes the
rounding of the classes that compete for a voxel the smallest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.inference.arrays.array_backend import Array, Arrays
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.sliding_window import Index, WindowGrid, window_grid

Axes = tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """A stretch of one axis that windows cover together: `extent` voxels from `origin`.

    The first `finished` of them are final once its windows are added; `kept` come from the step before.
    """

    origin: int
    extent: int
    starts: Index
    finished: int
    kept: int


@dataclass(frozen=True)
class Block:
    """Final logits (K, a, b, c) of a box of the image (not padded) that begins at voxel `first`."""

    first: Index
    logits: Array


def axis_steps(starts: Index, roi: int, join_last: bool = False) -> tuple[Step, ...]:
    """The steps along one axis, one per window.

    join_last: where the last window is pulled back, it shares a step with the one before it, so that no step hands on
    more than a usual overlap.
    """
    groups: list[Index] = [(start,) for start in starts]
    if join_last and len(starts) > 2 and starts[-1] - starts[-2] < starts[1] - starts[0]:
        groups[-2:] = [starts[-2:]]
    ends = [group[-1] + roi for group in groups]
    steps = []
    for i, group in enumerate(groups):
        following = groups[i + 1][0] if i + 1 < len(groups) else ends[i]
        kept = ends[i - 1] - group[0] if i else 0
        steps.append(Step(group[0], ends[i] - group[0], group, following - group[0], kept))
    return tuple(steps)


@dataclass(frozen=True)
class SlabLayout:
    """The windows of one volume as steps, and how large the stores get."""

    windows: WindowGrid
    steps: tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]
    half: bool

    @classmethod
    def of(cls, windows: WindowGrid, half: bool) -> SlabLayout:
        """The layout for a grid of windows; half-precision stores join a last layer that was pulled back."""
        x, y, z = (
            axis_steps(starts, roi, join_last=half and axis == 0)
            for axis, (starts, roi) in enumerate(zip(windows.starts, windows.roi_size, strict=True))
        )
        return cls(windows, (x, y, z), half)

    def corners(self) -> Iterator[Index]:
        """The windows in the order in which `blend` takes their logits."""
        for step_x, step_y, step_z in itertools.product(*self.steps):
            yield from itertools.product(step_x.starts, step_y.starts, step_z.starts)

    def store_shapes(self) -> tuple[Index, Index, Index]:
        """The shapes of layer, band and tile without the class axis."""
        (depth, keep_x), (height, keep_y), (width, _) = (
            (max(s.extent for s in steps), max(s.kept for s in steps)) for steps in self.steps
        )
        _, rows, columns = self.windows.padded_shape
        return (keep_x, rows, columns), (depth, keep_y, columns), (depth, height, width)

    def voxels_finished(self) -> int:
        """Voxels of the largest usual block that becomes final at once; those behind the last windows are larger."""
        return math.prod(max(step.finished for step in steps[:-1] or steps) for steps in self.steps)

    def voxels_kept(self) -> tuple[int, int]:
        """Voxels in the stores that may be half precision (layer and band), and in the fp32 tile."""
        layer, band, tile = (a * b * c for a, b, c in self.store_shapes())
        return layer + band, tile


def best_layout(
    shape: Sequence[int], roi_size: Sequence[int], settings: PredictorConfig, half: bool
) -> tuple[SlabLayout, Axes]:
    """The layout of windows, and the order of axes in which it goes over them.

    In fp32 always (0, 1, 2), which gives the very sums of the plain way; in half precision the order that keeps least.
    """

    def layout(axes: Axes) -> SlabLayout:
        roi = [roi_size[a] for a in axes]
        return SlabLayout.of(window_grid([shape[a] for a in axes], roi, settings.overlap, settings.starts), half)

    def kept(axes: Axes) -> float:
        stored, tile = layout(axes).voxels_kept()
        return 0.5 * stored + tile

    orders: list[Axes] = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    chosen = min(orders, key=kept) if half else orders[0]
    return layout(chosen), chosen


class _Stores:
    """Layer, band and tile of sums with K channels."""

    def __init__(self, layout: SlabLayout, channels: int, arrays: Arrays, half: bool, shifted: int) -> None:
        layer, band, tile = ((channels, *shape) for shape in layout.store_shapes())
        self.layer, self.band = arrays.empty(layer, half), arrays.empty(band, half)
        self.tile = arrays.empty(tile)
        self.arrays, self.shifted = arrays, shifted if half else 0

    def enter(self, x: Step, y: Step, z: Step, before: Step | None, channels: slice) -> None:
        """Fills the tile's channels at a place with the sums so far of all its voxels."""
        tile = self.tile[channels, : x.extent, : y.extent]
        if before is not None:
            _shift_columns(tile, before)
        rows, columns = slice(y.origin + y.kept, y.origin + y.extent), slice(z.origin + z.kept, z.origin + z.extent)
        tile = tile[..., : z.extent]
        tile[:, :, : y.kept, z.kept :] = self.band[channels, : x.extent, : y.kept, columns]
        tile[:, : x.kept, y.kept :, z.kept :] = self.layer[channels, : x.kept, rows, columns]
        tile[:, x.kept :, y.kept :, z.kept :] = 0

    def leave(self, x: Step, y: Step, z: Step) -> Array:
        """Puts away what later windows still overlap; returns the sums that are final (a view of the tile)."""
        tile = self.tile[:, : x.extent, : y.extent, : z.finished]
        rows, columns = slice(y.origin, y.origin + y.finished), slice(z.origin, z.origin + z.finished)
        self._put(self.band[:, : x.extent, : y.extent - y.finished, columns], tile[:, :, y.finished :])
        self._put(self.layer[:, : x.extent - x.finished, rows, columns], tile[:, x.finished :, : y.finished])
        return tile[:, : x.finished, : y.finished]

    def _put(self, store: Array, sums: Array) -> None:
        if 0 in sums.shape:
            return
        if self.shifted:
            largest = self.arrays.largest(sums[: self.shifted])
            for channel in range(self.shifted):  # one by one: no temporary of them all
                store[channel] = sums[channel] - largest
            store[self.shifted :] = sums[self.shifted :]
        else:
            store[...] = sums


def _shift_columns(tile: Array, before: Step) -> None:
    """Shifts the columns that two windows share to the front, piece by piece since source and target overlap."""
    by = before.finished
    for first in range(0, before.extent - by, by):
        last = min(first + by, before.extent - by)
        tile[..., first:last] = tile[..., first + by : last + by]


def blend(
    layout: SlabLayout, logits: Iterable[Array], weight: Array, channels: int, arrays: Arrays, competing: int = 0
) -> Iterator[Block]:
    """Blends logits (K, *roi) that come in the order of `layout.corners()` into blocks that cover the image once.

    weight: of each voxel of a window. competing: how many of the channels are classes of which the largest wins (0 for
    independent structures): in half precision these keep their differences only. A block's logits are overwritten by
    the next one's.
    """
    sums = _Stores(layout, channels, arrays, layout.half, competing)
    weights = _Stores(layout, 1, arrays, False, 0)
    room = arrays.empty((channels * layout.voxels_finished(),))
    groups = _groups(channels, arrays.channels_per_chunk(math.prod(layout.store_shapes()[2])))
    incoming = iter(logits)
    before: Step | None = None
    for x, y, z in itertools.product(*layout.steps):
        before = before if z.origin else None
        weights.enter(x, y, z, before, slice(0, 1))
        for number, corner in enumerate(itertools.product(x.starts, y.starts, z.starts)):
            box = tuple(
                slice(c - step.origin, c - step.origin + r)
                for c, step, r in zip(corner, (x, y, z), layout.windows.roi_size, strict=True)
            )
            weights.tile[(0, *box)] += weight
            _add(sums, next(incoming), weight, box, groups, (x, y, z, before) if number == 0 else None)
        before = z
        final = _compact(sums.leave(x, y, z), room)
        final /= weights.leave(x, y, z)
        yield from _without_padding(layout.windows, (x.origin, y.origin, z.origin), final)


def _add(
    sums: _Stores,
    values: Array,
    weight: Array,
    box: tuple[slice, ...],
    groups: Sequence[slice],
    entering: tuple[Step, Step, Step, Step | None] | None,
) -> None:
    """Adds a window's logits, a group of channels at a time: what is filled in is in the cache when it is added to."""
    for group in groups:
        if entering is not None:
            sums.enter(*entering, group)
        sums.arrays.add_product(sums.tile[(group, *box)], values[group], weight)


def _compact(sums: Array, room: Array) -> Array:
    """A copy without gaps, which everything that follows reads several times faster; itself where there is no room."""
    if math.prod(sums.shape) > len(room):
        return sums
    compact = room[: math.prod(sums.shape)].reshape(tuple(sums.shape))
    compact[...] = sums
    return compact


def _groups(channels: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, channels)) for first in range(0, channels, size)]


def _without_padding(windows: WindowGrid, first: Index, logits: Array) -> Iterator[Block]:
    """The part of a block that lies in the image."""
    inner, begin = [], []
    for origin, size, before, n in zip(first, logits.shape[1:], windows.before, windows.image_shape, strict=True):
        low, high = max(origin, before), min(origin + size, before + n)
        if low >= high:
            return
        inner.append(slice(low - origin, high - origin))
        begin.append(low - before)
    yield Block(tuple(begin), logits[(slice(None), *inner)])
