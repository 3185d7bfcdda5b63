"""Focal loss."""

from __future__ import annotations

import torch
from monai.losses import FocalLoss
from torch import nn


class Focal(nn.Module):
    """MONAI's focal loss of logits_BKV and a target of zeros and ones: the mean over channels and voxels.

    Without `background` its channel is left out of the mean only. MONAI leaves its logit out of the softmax too, so
    that nothing holds structures and background apart, and with a single structure nothing is learned at all.
    """

    weights: torch.Tensor | None

    def __init__(
        self, sigmoid: bool, gamma: float, alpha: float | None, weights: torch.Tensor | None, background: bool
    ) -> None:
        super().__init__()
        self.each = FocalLoss(gamma=gamma, alpha=alpha, use_softmax=not sigmoid, reduction="none")
        self.first = 0 if background else 1
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits_BKV: torch.Tensor, target_BKV: torch.Tensor) -> torch.Tensor:
        losses = self.each(logits_BKV, target_BKV)
        if self.weights is not None:
            losses = losses * self.weights[:, None]
        return losses[:, self.first :].mean()
