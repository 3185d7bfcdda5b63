"""Patch store moved into GPU memory, if it fits in next to what training takes."""

from __future__ import annotations

import logging

import torch

from pipeline.preprocessing.plan import Plan
from pipeline.sampling.patch_store import PatchStore

log = logging.getLogger(__name__)


def move_store_to_gpu(store: PatchStore, plan: Plan, device: torch.device, free_gib: float | None) -> PatchStore:
    """The store, on a GPU that has room for it beside the training. free_gib: of that GPU; None: it is none."""
    if free_gib is not None:
        store = store.to_device(str(device), free_gib, plan.predicted.get("train_memory_gib", free_gib))
    log.info("patches are read from %s: %s", store.where, store.reason)
    return store
