"""The V-Net: MONAI's, made to take any number of channels, with dropout and norm as asked for."""

from __future__ import annotations

import torch
from monai.networks.nets import VNet
from torch import nn

from pipeline.models.networks.network_config import VNetConfig


class ProjectedVNet(nn.Module):
    """image_BCXYZ to logits_BKXYZ; sizes divisible by 16."""

    def __init__(self, settings: VNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        fitting = next((width for width in (1, 2, 4, 8, 16) if width >= in_channels), 16)
        self.projection = nn.Identity() if fitting == in_channels else nn.Conv3d(in_channels, fitting, kernel_size=1)
        act = "prelu" if settings.act == "prelu" else ("elu", {"inplace": True})
        self.vnet = VNet(spatial_dims=3, in_channels=fitting, out_channels=out_channels, act=act)
        _set_dropout(self.vnet, settings.dropout)
        if settings.norm == "instance":
            _use_instance_norm(self.vnet)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.vnet(self.projection(image))


def _set_dropout(network: nn.Module, probability: float) -> None:
    """MONAI drops half of two skip connections whatever it is told; this sets all of them."""
    for module in network.modules():
        if isinstance(module, nn.Dropout3d):
            module.p = probability


def _use_instance_norm(network: nn.Module) -> None:
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm3d):
                setattr(module, name, nn.InstanceNorm3d(child.num_features, affine=True))
