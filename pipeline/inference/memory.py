"""The memory that a case takes: predicted before it starts, measured while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.base.resident import resident_memory_gib
from pipeline.base.runtime import available_memory_gib
from pipeline.data.plan import Plan
from pipeline.inference.paint import label_type
from pipeline.inference.restore import CHUNK_VOXELS
from pipeline.inference.settings import InferenceSettings
from pipeline.inference.slab import SlabLayout, best_layout

_GIB = 2**30
_SAFE_SHARE = 0.9
"""Of the memory that is free; other programs want some too."""


@dataclass(frozen=True)
class Need:
    """Predicted memory of one case in GiB, on top of what the process has when it starts.

    reading: while the image is brought onto the planned grid. held: image and results while windows are blended.
    stores: what blending takes, where the network's logits live (a GPU's memory, or the same).
    """

    reading: float
    held: float
    stores: float

    @property
    def peak(self) -> float:
        """Where all is in one memory."""
        return max(self.reading, self.held + self.stores)


@dataclass(frozen=True)
class Needs:
    """What a case takes with overlapping logits in fp32, and in half precision; `base` is what the process has."""

    fp32: Need
    half: Need
    base: float

    def __str__(self) -> str:
        return f"{self.base + self.fp32.peak:.2f} GiB predicted ({self.base + self.half.peak:.2f} in half precision)"


def predict_need(
    image_shape: Sequence[int],
    planned_shape: Sequence[int],
    plan: Plan,
    settings: InferenceSettings,
    half: bool,
    network_gib: float = 0.0,
    maps: int = 0,
) -> Need:
    """What segmenting an image of `image_shape` on a grid of `planned_shape` takes.

    network_gib: of one call of the network, its result included. maps: channels beside the classes (disagreement).
    """
    channels_in, channels = len(plan.channels), plan.out_channels + maps
    voxels, planned = math.prod(image_shape), math.prod(planned_shape)
    conformed = 4 * channels_in * planned
    between = 0 if tuple(image_shape) == tuple(planned_shape) else 4 * max(voxels, planned)
    reading = 4 * channels_in * voxels + max(conformed + between, 4 * voxels)  # a channel as read, or the planned grid

    results = voxels * label_type(plan.structures).itemsize
    if settings.uncertainty:
        results += 4 * voxels * (1 + maps)
    if settings.probabilities:
        results += 4 * voxels * plan.out_channels
    layout, axes = best_layout(planned_shape, settings.window(plan), settings, half)
    stored, tile = layout.voxels_kept()
    stores = stored * (channels * (2 if half else 4) + 4) + 4 * tile * (channels + 1)
    stores += 4 * channels * layout.voxels_finished()
    stores += _restoring(layout, planned_shape, image_shape, axes, channels)
    if settings.uncertainty or settings.probabilities:  # all classes of a block, on the image's grid
        stores += int(4 * plan.out_channels * layout.voxels_finished() * max(voxels / planned, 1.0))
    return Need(reading / _GIB, (conformed + results) / _GIB, stores / _GIB + network_gib)


def free_memory_gib(settings: InferenceSettings) -> float:
    """What may still be taken: what is free, or what the settings leave beside what the process has."""
    free = _SAFE_SHARE * available_memory_gib()
    return free if settings.memory_gib is None else min(free, settings.memory_gib - resident_memory_gib())


def _restoring(
    layout: SlabLayout, planned: Sequence[int], image: Sequence[int], axes: Sequence[int], channels: int
) -> int:
    """Bytes for the plane, rows and chunks that resampling keeps; none where both grids are one."""
    if tuple(planned) == tuple(image):
        return 0
    _, rows, columns = (planned[axis] for axis in axes)
    depth = max(step.finished for step in layout.steps[0]) + 1
    chunk = min(CHUNK_VOXELS, channels * layout.voxels_finished())
    return 4 * channels * columns * (rows + depth) + 4 * 4 * chunk
