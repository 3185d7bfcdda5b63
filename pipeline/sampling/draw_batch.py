"""Batch of patches for one training step: locations drawn, patches cut."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.io.geometry import Shape
from pipeline.sampling.cut_patches import PatchBatch, cut_batch
from pipeline.sampling.patch_locations import PatchSource, draw_locations


def draw_batch(
    store: PatchSource,
    ids: Sequence[str],
    patch_size: Shape,
    batch_size: int,
    seed: int,
    step: int,
    oversample: float = 0.33,
) -> PatchBatch:
    """The batch of `step`: arguments as in `draw_location`."""
    return cut_batch(store, draw_locations(store, ids, patch_size, batch_size, seed, step, oversample), patch_size)
