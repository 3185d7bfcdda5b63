"""The exponential moving average (EMA) of a network's weights."""

from __future__ import annotations

import torch
from torch import nn


class MovingAverage:
    """An exponential moving average of all weights and buffers of a network.

    The horizon is the number of steps that it looks back; early on it looks back a tenth of the steps done, so that the
    random beginning is forgotten. Numbers that are not floats are copied.
    """

    def __init__(self, network: nn.Module, horizon: float) -> None:
        self.horizon = max(horizon, 1.0)
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Takes in the network's weights after `step` (counted from 0)."""
        looks_back = min(self.horizon, 1 + step / 10)
        averages, currents = [], []
        for name, current in network.state_dict().items():
            if current.is_floating_point():
                averages.append(self.weights[name])
                currents.append(current)
            else:
                self.weights[name].copy_(current)
        torch._foreach_lerp_(averages, currents, 1 / looks_back)
