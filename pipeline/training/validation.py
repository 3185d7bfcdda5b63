"""Validation on whole cases: sliding window, argmax, Dice per structure and case, in the memory of a slab."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.inference.slab_blending import SlabLayout, blend
from pipeline.inference.sliding_window import importance_map, window_grid

HALF_BEYOND_GIB = 1.0
"""Sums of overlapping logits that would take more than this are kept in half precision."""


class CaseStore(Protocol):
    """Where whole cases come from: image (C, X, Y, Z) float32, label (X, Y, Z) as stored for training."""

    def image(self, case: str) -> np.ndarray | torch.Tensor: ...
    def label(self, case: str) -> np.ndarray | torch.Tensor: ...


OnValidatedCase = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Is shown a validated case: its id, image (C, X, Y, Z), reference and predicted label (X, Y, Z)."""


@dataclass(frozen=True)
class LabelTables:
    """How label maps and outputs are read. ignore: the label value that does not count."""

    structures: tuple[str, ...]
    overlapping: bool
    ignore: int | None


@torch.no_grad()
def validate(
    network: Callable[[torch.Tensor], torch.Tensor],
    store: CaseStore,
    cases: Iterable[str],
    labelling: LabelTables,
    patch_size: Sequence[int],
    device: torch.device,
    overlap: float,
    sw_batch_size: int,
    look: OnValidatedCase | None = None,
) -> dict[str, float]:
    """Mean Dice per structure over the cases; a structure that no case holds or predicts is left out.

    look: is shown each case.

    Per case: 1 where equal, 0 where only one of the two holds the structure, undefined where neither does.
    """
    scores: dict[str, list[float]] = {name: [] for name in labelling.structures}
    for case in cases:
        image_CXYZ = torch.as_tensor(store.image(case))
        found = predict_label(network, image_CXYZ, labelling, patch_size, device, overlap, sw_batch_size)
        label = torch.as_tensor(store.label(case), device=device).long()
        if look is not None:
            look(case, image_CXYZ, shown_label(label, labelling), found)
        for name, score in zip(labelling.structures, dice_per_structure(found, label, labelling), strict=True):
            if not math.isnan(score):
                scores[name].append(score)
    return {name: sum(values) / len(values) for name, values in scores.items() if values}


def predict_label(
    network: Callable[[torch.Tensor], torch.Tensor],
    image_CXYZ: torch.Tensor,
    labelling: LabelTables,
    patch_size: Sequence[int],
    device: torch.device,
    overlap: float,
    sw_batch_size: int,
    half_beyond_gib: float = HALF_BEYOND_GIB,
) -> torch.Tensor:
    """The label map (X, Y, Z) on the device; logits live only where windows still overlap (`inference.slab`)."""
    array, arrays = image_CXYZ.cpu().numpy(), TorchArrays(device)
    channels = len(labelling.structures) + (0 if labelling.overlapping else 1)
    grid = window_grid(array.shape[1:], patch_size, overlap)
    stored, _ = SlabLayout.of(grid, half=False).voxels_kept()
    layout = SlabLayout.of(grid, half=4 * channels * stored > half_beyond_gib * 2**30)

    def logits() -> Iterator[torch.Tensor]:
        corners = layout.corners()
        while batch := list(itertools.islice(corners, sw_batch_size)):
            windows = np.stack([layout.windows.cut(array, corner) for corner in batch])
            yield from network(torch.from_numpy(windows).to(device)).float()

    found = torch.zeros(array.shape[1:], dtype=torch.int64 if labelling.overlapping else torch.int32, device=device)
    weight = arrays.from_numpy(importance_map(layout.windows.roi_size, "gaussian"))
    for block in blend(layout, logits(), weight, channels, arrays, 0 if labelling.overlapping else channels):
        place = tuple(slice(first, first + n) for first, n in zip(block.first, block.logits.shape[1:], strict=True))
        found[place] = predicted_label(block.logits, labelling).to(found.dtype)
    return found


def predicted_label(logits_KXYZ: torch.Tensor, labelling: LabelTables) -> torch.Tensor:
    """The predicted label map, as stored labels are: an index, or one bit per structure where they overlap."""
    if not labelling.overlapping:
        return logits_KXYZ.argmax(0)
    bits = torch.arange(len(labelling.structures), device=logits_KXYZ.device)[:, None, None, None]
    return ((logits_KXYZ > 0).long() << bits).sum(0)


def shown_label(label_XYZ: torch.Tensor, labelling: LabelTables) -> torch.Tensor:
    """The reference with ignored voxels as background."""
    return label_XYZ if labelling.ignore is None else label_XYZ.masked_fill(label_XYZ == labelling.ignore, 0)


def dice_per_structure(found_XYZ: torch.Tensor, label_XYZ: torch.Tensor, labelling: LabelTables) -> list[float]:
    """Dice of each structure of one case; NaN where neither prediction nor reference holds it."""
    valid = torch.ones_like(label_XYZ, dtype=torch.bool) if labelling.ignore is None else label_XYZ != labelling.ignore
    count = len(labelling.structures)
    if labelling.overlapping:
        rows = []
        for k in range(count):
            pred_V, true_V = (((label >> k) & 1)[valid].bool() for label in (found_XYZ, label_XYZ))
            rows.append(torch.stack([(pred_V & true_V).sum(), pred_V.sum(), true_V.sum()]))
        both, pred, true = torch.stack(rows, 1)
    else:
        pred_V, true_V = found_XYZ[valid], label_XYZ[valid]
        both = torch.bincount(true_V[pred_V == true_V], minlength=count + 1)[1:]
        pred = torch.bincount(pred_V, minlength=count + 1)[1:]
        true = torch.bincount(true_V, minlength=count + 1)[1:]
    return (2 * both / (pred + true)).tolist()
