"""Cross-entropy, also over the hardest voxels alone (top-k)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.models.losses.dice_ce_terms import LEAST_WEIGHT


class CrossEntropy(nn.Module):
    """Cross-entropy of logits_BKV and a target of zeros and ones: torch's, over classes or (sigmoid) per structure.

    Class weights are weights of voxels: the mean is divided by their sum, as torch does for class indices. top_percent:
    the mean over that share of the voxels, those with the largest loss (weighted, divided by their number).
    """

    weights: torch.Tensor | None

    def __init__(
        self,
        sigmoid: bool,
        weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        top_percent: float | None = None,
    ) -> None:
        super().__init__()
        self.sigmoid, self.label_smoothing, self.top_percent = sigmoid, label_smoothing, top_percent
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits_BKV: torch.Tensor, target_BKV: torch.Tensor) -> torch.Tensor:
        reduction = "mean" if self.top_percent is None else "none"
        if self.sigmoid:
            smoothed = target_BKV * (1 - self.label_smoothing) + self.label_smoothing / 2
            weight = None if self.weights is None else self.weights[:, None]
            losses = F.binary_cross_entropy_with_logits(logits_BKV, smoothed, weight=weight, reduction=reduction)
        else:
            label_BV, weights = target_BKV.argmax(1), self.weights
            by_weight = weights is not None and self.top_percent is None
            losses = F.cross_entropy(
                logits_BKV,
                label_BV,
                weight=weights,
                label_smoothing=self.label_smoothing,
                reduction="none" if by_weight else reduction,
            )
            if weights is not None and by_weight:
                losses = _over_weights(losses, weights[label_BV].sum())
        if self.top_percent is None:
            return losses
        hardest = max(int(losses.numel() * self.top_percent / 100), 1)
        return losses.flatten().topk(hardest, sorted=False).values.mean()


def _over_weights(losses_BV: torch.Tensor, weight_sum: torch.Tensor) -> torch.Tensor:
    """The losses' sum, divided by that of the voxels' weights; 0 where no voxel has any, which torch makes 0 / 0."""
    mean = losses_BV.sum() / weight_sum.clamp_min(LEAST_WEIGHT)
    return torch.where(weight_sum > 0, mean, torch.zeros_like(mean))
