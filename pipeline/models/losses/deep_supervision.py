"""Deep supervision: the loss summed over the outputs of a network, and labels at the size of the coarser ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.base.errors import TrainingError


def deep_supervision_loss(
    loss: nn.Module,
    levels: Sequence[torch.Tensor],
    label_BXYZ: torch.Tensor,
    weights: Sequence[float] | None,
    distributed: bool,
) -> torch.Tensor:
    """Return the loss, weighted over the levels of a network with deep supervision.

    Args:
        loss: Takes logits (B, K, X, Y, Z) and a label of the same size.
        levels: Logits, the finest first; one entry without deep supervision.
        label_BXYZ: The label at the finest level's size.
        weights: Of the levels; None halves them from level to level. They are normalised to a sum of 1.
        distributed: Other processes take part and wait for a gradient of every parameter.

    Raises:
        TrainingError: There are more or fewer weights than levels.
    """
    weights = weights or [0.5**level for level in range(len(levels))]
    if len(weights) != len(levels):
        raise TrainingError(
            f"train.deep_supervision_weights has {len(weights)} weights, but the network has {len(levels)} outputs"
        )
    total = torch.zeros((), device=label_BXYZ.device)
    for weight, logits in zip(weights, levels, strict=True):
        if weight:
            total = total + weight / sum(weights) * loss(logits, downsample_label(label_BXYZ, logits))
        elif distributed:  # processes that average their gradients wait for one of every parameter: here 0
            total = total + logits[:0].sum()
    return total


def downsample_label(label_BXYZ: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The label at the size of a coarser level: the nearest voxel's, untouched, whatever its type and meaning.

    By index: as floats, 24 bits would be left of a mask of overlapping structures, and not all marks of ignored voxels.
    """
    for axis, (given, wanted) in enumerate(zip(label_BXYZ.shape[1:], logits.shape[2:], strict=True), start=1):
        if given != wanted:
            centres = 2 * torch.arange(wanted, device=label_BXYZ.device) + 1  # in halves of a coarse voxel
            label_BXYZ = label_BXYZ.index_select(axis, centres * given // (2 * wanted))
    return label_BXYZ
