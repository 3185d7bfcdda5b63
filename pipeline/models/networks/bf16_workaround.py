"""Keeps a fault of bf16 convolutions on CPUs out of training.

oneDNN, as torch 2.13 brings it, computes the weight gradient of a bf16 Conv3d from memory that was never written where
the input is shorter along its first spatial axis than the kernel (16 channels or more): a gradient of 1e36 or NaN, now
and then. Output and input gradient are right. `tests/models/networks/test_bf16_workaround.py` shows it.
"""

from __future__ import annotations

import torch
from torch import nn


class GuardedConv3d(nn.Conv3d):
    """A Conv3d that computes in fp32 where bf16 would give a wrong weight gradient; otherwise the same in all."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, X, Y, Z) to (B, K, X', Y', Z')."""
        too_short = input.shape[2] < self.kernel_size[0]
        if too_short and input.device.type == "cpu" and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)


def guard_bf16_convolutions(network: nn.Module) -> nn.Module:
    """Makes every Conv3d of `network` a GuardedConv3d, in place; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = GuardedConv3d
    return network
