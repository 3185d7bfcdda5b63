"""From blocks of logits on the planned grid to finished boxes on the image's grid, while blocks arrive.

Logits are interpolated linearly (`align_corners=False`: both grids cover the same box), then the caller takes the
argmax: structures keep their shape better than when labels are resampled. A target voxel between two blocks waits
for the second one; of the first, one plane, one row and one column of voxels are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.arrays.array_backend import Array, Arrays
from pipeline.inference.slab_blending import Block
from pipeline.inference.sliding_window import Index

CHUNK_VOXELS = 4_000_000
"""Of logits that are interpolated at once, at most."""


@dataclass(frozen=True)
class Chunk:
    """Logits (k, a, b, c) of channels from `first` on, in one finished box."""

    first: int
    logits: Array


@dataclass(frozen=True)
class Box:
    """A box of target voxels that is final. `chunks` must be used up before the next box is asked for."""

    place: tuple[slice, slice, slice]
    chunks: Iterator[Chunk]


@dataclass(frozen=True)
class AxisSampling:
    """For each target voxel along one axis: the source voxels below and above it and how far it lies between."""

    n_source: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    fraction: NDArray[np.float32]

    @classmethod
    def between(cls, n_source: int, n_target: int) -> AxisSampling:
        """Linear sampling of n_source voxels at n_target places over the same extent, clamped at its ends.

        Places are `source_coordinates`, rounded as torch's `interpolate` rounds them, so that results are its very own.
        """
        scale = np.float64(np.float32(n_source) / np.float32(n_target))
        at = np.clip((scale * (np.arange(n_target) + 0.5) - 0.5).astype(np.float32), 0, n_source - 1)
        low = np.floor(at).astype(np.int64)
        return cls(n_source, low, np.ceil(at).astype(np.int64), at - low.astype(np.float32))

    @property
    def is_identity(self) -> bool:
        """Whether targets are the source voxels themselves."""
        return len(self.low) == self.n_source

    def reached(self, first: int, last: int) -> slice:
        """The targets that become known with source voxels first … last − 1."""
        low, high = np.searchsorted(self.high, [first, last])
        return slice(int(low), int(high))


class Resampler:
    """Takes blocks in the order of `slab.blend` and gives finished boxes that cover the target once.

    order: which axis is interpolated first, second and third; the last one first gives torch's very roundings.
    """

    def __init__(
        self, source_shape: Index, target_shape: Index, channels: int, arrays: Arrays, order: Sequence[int] = (2, 1, 0)
    ) -> None:
        self.order = order
        self.axes = [AxisSampling.between(s, t) for s, t in zip(source_shape, target_shape, strict=True)]
        self.interpolated = [not axis.is_identity for axis in self.axes]
        self.channels, self.arrays, self.source_shape = channels, arrays, source_shape
        self._plane: Array = None
        self._row: Array = None
        self._column: Array = None

    def boxes(self, blocks: Iterable[Block]) -> Iterator[Box]:
        """A box for every block that completes target voxels."""
        if not any(self.interpolated):
            for block in blocks:
                place = tuple(slice(f, f + n) for f, n in zip(block.first, block.logits.shape[1:], strict=True))
                yield Box(place, iter([Chunk(0, block.logits)]))  # type: ignore[arg-type]
            return
        for block in blocks:
            shape = block.logits.shape[1:]
            place = tuple(axis.reached(f, f + n) for axis, f, n in zip(self.axes, block.first, shape, strict=True))
            chunks = self._chunks(block, place)
            if all(axis.stop > axis.start for axis in place):
                yield Box(place, chunks)  # type: ignore[arg-type]
            for _ in chunks:  # what later targets need is taken from every chunk, wanted or not
                pass

    def _chunks(self, block: Block, place: tuple[slice, ...]) -> Iterator[Chunk]:
        voxels = max(np.prod(block.logits.shape[1:]), np.prod([axis.stop - axis.start for axis in place]))
        size = min(self.arrays.channels_per_chunk(int(voxels)), max(int(CHUNK_VOXELS // voxels), 1))
        for first in range(0, self.channels, size):
            channels = slice(first, min(first + size, self.channels))
            known, origin = self._with_neighbours(block, channels)
            for axis in self.order:
                if self.interpolated[axis] and 0 not in known.shape:
                    sampling, wanted = self.axes[axis], place[axis]
                    low, high = sampling.low[wanted] - origin[axis], sampling.high[wanted] - origin[axis]
                    known = self.arrays.lerp(known, axis + 1, low, high, sampling.fraction[wanted])
            yield Chunk(first, known)

    def _with_neighbours(self, block: Block, channels: slice) -> tuple[Array, Index]:
        """The block's logits with the last plane, row and column of the blocks before it; and where that begins."""
        values = block.logits[channels]
        halo = [int(wanted and first > 0) for wanted, first in zip(self.interpolated, block.first, strict=True)]
        (hx, hy, hz), (a, b, c), (_, y, z) = halo, values.shape[1:], block.first
        known = self.arrays.empty((len(values), hx + a, hy + b, hz + c))
        rows, columns = slice(y, y + b), slice(z, z + c)
        planes, heights = slice(1 - hx, 1 + a), slice(1 - hy, 1 + b)
        self._make_room(a, b)
        known[:, hx:, hy:, hz:] = values
        if hx:
            known[:, 0, hy:, hz:] = self._plane[channels, rows, columns]
        if hy:
            known[:, :, 0, hz:] = self._row[channels, planes, columns]
        if hz:
            known[:, :, :, 0] = self._column[channels, planes, heights]
        self._plane[channels, rows, columns] = known[:, -1, hy:, hz:]
        self._row[channels, planes, columns] = known[:, :, -1, hz:]
        self._column[channels, planes, heights] = known[:, :, :, -1]
        return known, tuple(f - h for f, h in zip(block.first, halo, strict=True))

    def _make_room(self, planes: int, rows: int) -> None:
        """Stores for what is kept of earlier blocks; they grow only where a later block is larger."""
        _, n_rows, n_columns = self.source_shape
        if self._plane is None:
            self._plane = self.arrays.empty((self.channels, n_rows, n_columns))
        self._row = self._grown(self._row, (self.channels, planes + 1, n_columns))
        self._column = self._grown(self._column, (self.channels, planes + 1, rows + 1))

    def _grown(self, store: Array, shape: Index) -> Array:
        if store is not None and all(have >= need for have, need in zip(store.shape, shape, strict=True)):
            return store
        have = (0, 0, 0) if store is None else tuple(store.shape)
        larger = self.arrays.empty(tuple(map(max, have, shape)))
        if store is not None:
            larger[tuple(slice(n) for n in have)] = store
        return larger
