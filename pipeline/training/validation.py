"""Validation on whole cases: sliding window, argmax, Dice per structure and case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipeline.inference.windows import sliding_window, window_grid


class CaseStore(Protocol):
    """Where whole cases come from: image (C, X, Y, Z) float32, label (X, Y, Z) as stored for training."""

    def image(self, case: str) -> np.ndarray | torch.Tensor: ...
    def label(self, case: str) -> np.ndarray | torch.Tensor: ...


Look = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Is shown a validated case: its id, image (C, X, Y, Z), reference and predicted label (X, Y, Z)."""


@dataclass(frozen=True)
class ValidationPlan:
    """When and on which cases: after every `interval` steps and after the last one."""

    interval: int
    cases: tuple[str, ...]

    def due(self, step: int, max_steps: int) -> bool:
        """Whether validation follows step number `step` (counted from 1)."""
        return bool(self.cases) and (step % self.interval == 0 or step == max_steps)


@dataclass(frozen=True)
class Labelling:
    """How label maps and outputs are read. ignore: the label value that does not count."""

    structures: tuple[str, ...]
    overlapping: bool
    ignore: int | None


def plan_validation(
    shapes: Mapping[str, Sequence[int]],
    patch_size: Sequence[int],
    batch_size: int,
    max_steps: int,
    share: float,
    overlap: float,
    interval: int | None,
    cases: int | None,
    most: int = 20,
) -> ValidationPlan:
    """Chooses cases and interval so that validation takes about `share` of the training's work.

    shapes: of the fold's validation cases. One window costs a third of a training patch (forward only). Half of what
    is allowed bounds the number of cases (at least 2), the rest the number of validations (1 to `most`).
    """
    if not shapes:
        return ValidationPlan(max_steps, ())
    windows = {case: window_grid(shape, patch_size, overlap).count for case, shape in sorted(shapes.items())}
    allowed = 3 * share * batch_size * max_steps
    mean_windows = sum(windows.values()) / len(windows)
    number = cases or max(min(len(windows), math.floor(allowed / 2 / mean_windows)), min(2, len(windows)))
    names = list(windows)
    picked = tuple(names[i * len(names) // min(number, len(names))] for i in range(min(number, len(names))))
    rounds = max(min(math.floor(allowed / sum(windows[case] for case in picked)), most), 1)
    return ValidationPlan(interval or math.ceil(max_steps / rounds), picked)


@torch.no_grad()
def validate(
    network: Callable[[torch.Tensor], torch.Tensor],
    store: CaseStore,
    cases: Iterable[str],
    labelling: Labelling,
    patch_size: Sequence[int],
    device: torch.device,
    overlap: float,
    sw_batch_size: int,
    look: Look | None = None,
) -> dict[str, float]:
    """Mean Dice per structure over the cases; a structure that no case holds or predicts is left out.

    look: is shown each case.

    Per case: 1 where equal, 0 where only one of the two holds the structure, undefined where neither does.
    """
    scores: dict[str, list[float]] = {name: [] for name in labelling.structures}
    for case in cases:
        image_BCXYZ = torch.as_tensor(store.image(case), device=device)[None]
        logits = sliding_window(image_BCXYZ, network, patch_size, overlap=overlap, sw_batch_size=sw_batch_size)[0]
        label = torch.as_tensor(store.label(case), device=device).long()
        if look is not None:
            look(case, image_BCXYZ[0], shown_label(label, labelling), predicted_label(logits, labelling))
        for name, score in zip(labelling.structures, dice_per_structure(logits, label, labelling), strict=True):
            if not math.isnan(score):
                scores[name].append(score)
    return {name: sum(values) / len(values) for name, values in scores.items() if values}


def predicted_label(logits_KXYZ: torch.Tensor, labelling: Labelling) -> torch.Tensor:
    """The predicted label map, as stored labels are: an index, or one bit per structure where they overlap."""
    if not labelling.overlapping:
        return logits_KXYZ.argmax(0)
    bits = torch.arange(len(labelling.structures), device=logits_KXYZ.device)[:, None, None, None]
    return ((logits_KXYZ > 0).long() << bits).sum(0)


def shown_label(label_XYZ: torch.Tensor, labelling: Labelling) -> torch.Tensor:
    """The reference with ignored voxels as background."""
    return label_XYZ if labelling.ignore is None else label_XYZ.masked_fill(label_XYZ == labelling.ignore, 0)


def dice_per_structure(logits_KXYZ: torch.Tensor, label_XYZ: torch.Tensor, labelling: Labelling) -> list[float]:
    """Dice of each structure of one case; NaN where neither prediction nor reference holds it."""
    valid = torch.ones_like(label_XYZ, dtype=torch.bool) if labelling.ignore is None else label_XYZ != labelling.ignore
    count = len(labelling.structures)
    if labelling.overlapping:
        pred_SV = (logits_KXYZ > 0)[:, valid]
        true_SV = ((label_XYZ[valid][None] >> torch.arange(count, device=label_XYZ.device)[:, None]) & 1).bool()
        both, pred, true = (pred_SV & true_SV).sum(1), pred_SV.sum(1), true_SV.sum(1)
    else:
        pred_V, true_V = logits_KXYZ.argmax(0)[valid], label_XYZ[valid]
        both = torch.bincount(true_V[pred_V == true_V], minlength=count + 1)[1:]
        pred = torch.bincount(pred_V, minlength=count + 1)[1:]
        true = torch.bincount(true_V, minlength=count + 1)[1:]
    return (2 * both / (pred + true)).tolist()
