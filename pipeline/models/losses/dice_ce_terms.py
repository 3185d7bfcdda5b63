"""Dice and cross-entropy from their sums over voxels: what the fused losses of two and of more classes share."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

LEAST_WEIGHT = 1e-12
"""What weights of voxels sum up to at the least: without any, 0 is divided by it, in fp16 times a large scale."""


class DiceCETerms(nn.Module):
    """Settings of Dice + cross-entropy, and the formulas that need sums over voxels only."""

    class_weights: torch.Tensor | None

    def __init__(
        self,
        include_background: bool = False,
        batch: bool = False,
        squared_pred: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        class_weights: torch.Tensor | None = None,
        ignore: int | None = None,
    ) -> None:
        super().__init__()
        self.include_background, self.batch, self.squared_pred = include_background, batch, squared_pred
        self.smooth_nr, self.smooth_dr = smooth_nr, smooth_dr
        self.lambda_dice, self.lambda_ce, self.ignore = lambda_dice, lambda_ce, ignore
        self.register_buffer("class_weights", class_weights, persistent=False)

    def of_sums(
        self, intersection: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The Dice term from its three sums (B, K), and its derivatives by the first two."""
        processes = 1
        if self.batch:
            sums = torch.stack([intersection, predicted, reference]).sum(1, keepdim=True)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
                processes = dist.get_world_size()
            intersection, predicted, reference = sums.unbind()
        numerator = 2 * intersection + self.smooth_nr
        denominator = predicted + reference + self.smooth_dr
        alone = numerator.shape[1] == 2 and not self.include_background  # MONAI does not weigh a single class
        weight = torch.ones_like(numerator)
        if self.class_weights is not None and not alone:
            weight = self.class_weights.expand_as(numerator)
        if not self.include_background:
            weight = torch.cat([torch.zeros_like(weight[:, :1]), weight[:, 1:]], 1)
        weight = weight / (weight.shape[0] * (weight.shape[1] - (not self.include_background)))
        value = (weight * (1 - numerator / denominator)).sum()
        # DistributedDataParallel takes the mean of the processes' gradients, but here they are parts of one sum.
        weight = weight * processes
        return value, -2 * weight / denominator, weight * numerator / denominator**2

    def entropy_scale(self, weight_sum: torch.Tensor) -> torch.Tensor:
        """What the sum of weighted cross-entropies is multiplied by, from the sum of the voxels' weights.

        With several processes it is their mean sum: the mean of their gradients is exact then.
        """
        unequal = self.class_weights is not None or self.ignore is not None
        if unequal and dist.is_available() and dist.is_initialized():
            dist.all_reduce(weight_sum)
            weight_sum /= dist.get_world_size()
        return self.lambda_ce / weight_sum.clamp_min(LEAST_WEIGHT)
