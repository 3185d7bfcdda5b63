"""A picture of drawn patches, on which a person sees at once whether images and labels go together."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocessing.plan import Plan
from pipeline.sampling.cut_patches import PatchBatch
from pipeline.sampling.draw_batch import draw_batch
from pipeline.sampling.patch_store import open_store

log = logging.getLogger(__name__)

_PREVIEWED = 8


def draw_preview(path: Path, batch: PatchBatch, structures: int) -> None:
    """Writes a PNG: per patch the first channel's slice with most of its label, seen from the feet, and the label."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    count = len(batch.places)
    figure, axes = plt.subplots(2, count, figsize=(2 * count, 4.4), squeeze=False)
    for i, place in enumerate(batch.places):
        image, label = batch.image_BCXYZ[i, 0].numpy(), batch.label_BXYZ[i].numpy()
        z = _fullest_slice(label)
        axes[0, i].imshow(_as_seen(image[..., z]), cmap="gray")
        axes[1, i].imshow(_as_seen(image[..., z]), cmap="gray")
        shown = np.ma.masked_equal(_as_seen(label[..., z]), 0)
        axes[1, i].imshow(shown, cmap="tab10", vmin=1, vmax=max(structures, 10), alpha=0.6, interpolation="nearest")
        axes[0, i].set_title(place.case if len(place.case) < 20 else f"{place.case[:19]}…", fontsize=7)
    for each in axes.flat:
        each.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
    plt.close(figure)


def _fullest_slice(label_XYZ: NDArray) -> int:
    filled = (label_XYZ != 0).sum(axis=(0, 1))
    return int(filled.argmax()) if filled.any() else label_XYZ.shape[2] // 2


def _as_seen(plane_XY: NDArray) -> NDArray:
    """Rows and columns of an axial RAS+ plane: the patient's right on the left, anterior on top."""
    return plane_XY.T[::-1, ::-1]


def preview_store(store_folder: Path, plan: Plan, path: Path) -> None:
    """Draws some patches as training will, and says where it reads them from, unless a GPU has room for them."""

    reserved_gib = plan.predicted.get("train_memory_gib", 0.0) if plan.device == "cpu" else 0.0
    store = open_store(store_folder, reserved_gib=reserved_gib)
    batch = draw_batch(store, store.ids, plan.patch_size, min(_PREVIEWED, len(store.ids)), seed=0, step=0, oversample=1)
    draw_preview(path, batch, len(plan.structures))
    log.info("patches are read from %s: %s", store.where, store.reason)
