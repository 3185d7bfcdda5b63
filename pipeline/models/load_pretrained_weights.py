"""Pretrained weights loaded into a network as far as names and shapes match, with a report of what was taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.base.errors import DataError

_LITTLE = 0.5


@dataclass(frozen=True)
class WeightLoadReport:
    """What became of pretrained weights, by parameter name."""

    matched: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    share: float
    """Of the network's parameters, those taken over."""

    def __str__(self) -> str:
        lines = [f"pretrained weights: {len(self.matched)} tensors taken over, {self.share:.0%} of the parameters"]
        if self.share < _LITTLE:
            lines[0] += ": most of the network begins anew; is it the same train.network, and as wide?"
        for what, names in (
            ("of another shape, begun anew", self.other_shape),
            ("not in the file, begun anew", self.missing),
            ("in the file, not in this network", self.unused),
        ):
            if names:
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                lines.append(f"  {len(names)} {what}: {shown}")
        return "\n".join(lines)


def load_matching_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> WeightLoadReport:
    """Copies every weight whose name and shape fit into the network and says what fitted.

    Raises a DataError where nothing fits: then the weights are another network's.
    """
    own = network.state_dict()
    matched = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    account = WeightLoadReport(
        matched=tuple(matched),
        other_shape=tuple(name for name in own if name in weights and name not in matched),
        missing=tuple(name for name in own if name not in weights),
        unused=tuple(name for name in weights if name not in own),
        share=sum(own[name].numel() for name in matched) / sum(tensor.numel() for tensor in own.values()),
    )
    if not matched:
        raise DataError(f"none of the pretrained weights fits this network; is it the same train.network?\n{account}")
    network.load_state_dict({name: weights[name] for name in matched}, strict=False)
    return account
