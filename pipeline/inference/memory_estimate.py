"""The memory that a case takes: predicted before it starts, measured while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.base.heap import give_back_freed_memory
from pipeline.base.machine import available_memory_gib
from pipeline.base.process_memory import resident_memory_gib
from pipeline.inference.logits_to_labels import label_type
from pipeline.inference.postprocessing.postprocess import BYTES_A_VOXEL
from pipeline.inference.predictor_config import PostprocessConfig, PredictorConfig
from pipeline.inference.resample_logits import CHUNK_VOXELS
from pipeline.inference.slab_blending import SlabLayout, best_layout
from pipeline.io.image_header import ImageHeader
from pipeline.preprocessing.plan import Plan

_GIB = 2**30
_SAFE_SHARE = 0.9
"""Of the memory that is free; other programs want some too."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted memory of one case in GiB, on top of what the process has when it starts.

    reading: while the image is read and brought onto the planned grid. conformed: the image there. results: label map
    and maps. stores: what the network and blending take, where logits live (a GPU's memory, or the same). writing: what
    postprocessing takes beside the results, when the image has been let go of.
    """

    reading: float
    conformed: float
    results: float
    stores: float
    writing: float

    @property
    def held(self) -> float:
        """Image and results, while windows are blended."""
        return self.conformed + self.results

    @property
    def peak(self) -> float:
        """Where all is in one memory."""
        return max(self.beside_stores, self.held + self.stores)

    @property
    def beside_stores(self) -> float:
        """The most of what is never on a GPU."""
        return max(self.reading, self.held, self.results + self.writing)


@dataclass(frozen=True)
class MemoryEstimates:
    """What a case takes with overlapping logits in fp32, and in half precision; `base` is what the process has."""

    fp32: MemoryEstimate
    half: MemoryEstimate
    base: float

    def __str__(self) -> str:
        return f"{self.base + self.fp32.peak:.2f} GiB predicted ({self.base + self.half.peak:.2f} in half precision)"


def estimate_memory(
    image_shape: Sequence[int],
    planned_shape: Sequence[int],
    plan: Plan,
    settings: PredictorConfig,
    half: bool,
    network_gib: float = 0.0,
    maps: int = 0,
    as_read_bytes: int | None = None,
) -> MemoryEstimate:
    """What segmenting an image of `image_shape` on a grid of `planned_shape` takes.

    network_gib: of one call of the network, its result included. maps: channels beside the classes (disagreement).
    as_read_bytes: see `bytes_as_read`; None: of one channel in four bytes.
    """
    channels_in, channels = len(plan.channels), plan.out_channels + maps
    voxels, planned = math.prod(image_shape), math.prod(planned_shape)
    conformed = 4 * channels_in * planned
    between = 0 if tuple(image_shape) == tuple(planned_shape) else 4 * max(voxels, planned)
    as_read = 4 * voxels if as_read_bytes is None else as_read_bytes
    reading = 4 * channels_in * voxels + max(conformed + between, as_read)

    labels = voxels * label_type(plan.structures).itemsize
    results = labels
    if settings.uncertainty:
        results += 4 * voxels * (1 + maps)
    if settings.probabilities:
        results += 4 * voxels * plan.out_channels
    layout, axes = best_layout(planned_shape, settings.window(plan.patch_size), settings, half)
    stored, tile = layout.voxels_kept()
    stores = stored * (channels * (2 if half else 4) + 4) + 4 * tile * (channels + 1)
    stores += 4 * channels * layout.voxels_finished()
    stores += _restoring(layout, planned_shape, image_shape, axes, channels)
    if settings.uncertainty or settings.probabilities:  # all classes of a block, on the image's grid
        stores += int(4 * plan.out_channels * layout.voxels_finished() * max(voxels / planned, 1.0))
    steps = not isinstance(settings.postprocess, str) and settings.postprocess != PostprocessConfig()
    writing = labels + BYTES_A_VOXEL * voxels if steps else 0
    gib = [size / _GIB for size in (reading, conformed, results, stores, writing)]
    return MemoryEstimate(gib[0], gib[1], gib[2], gib[3] + network_gib, gib[4])


def bytes_as_read(headers: Sequence[ImageHeader]) -> int:
    """The most that reading these files holds beside the image in fp32.

    Of one file all its voxels as stored; of several those of one, as stored or as fp32 before they join the others.
    """
    if len(headers) == 1:
        return headers[0].voxel_bytes
    return max(max(header.voxel_bytes, 4 * header.voxel_bytes // header.dtype.itemsize) for header in headers)


FreeMemory = Callable[[PredictorConfig], float]
"""Says what may still be taken, in GiB."""


def free_memory_gib(settings: PredictorConfig, available_gib: Callable[[], float] = available_memory_gib) -> float:
    """What may still be taken: most of what is free, or what the settings leave beside what the process has."""
    free = _SAFE_SHARE * available_gib()
    return free if settings.memory_gib is None else min(free, settings.memory_gib - resident_memory_gib())


def reclaim_memory_gib(wanted_gib: float, settings: PredictorConfig, free_gib: FreeMemory = free_memory_gib) -> float:
    """What may still be taken. Where that is less than is wanted, the process gives back first what it keeps unused."""
    free = free_gib(settings)
    if free < wanted_gib and give_back_freed_memory():
        free = free_gib(settings)
    return free


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
