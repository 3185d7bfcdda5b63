"""From settings to a network. All networks end in logits, one channel per class (or per structure if they overlap)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from pipeline.base.errors import ConfigError, missing_extra
from pipeline.models.networks.network_config import (
    AnyNetwork,
    SegResNetConfig,
    SwinUNETRConfig,
    UNetConfig,
    VNetConfig,
    network_config,
    size_divisor,
)


def build_network(
    config: Mapping[str, Any] | AnyNetwork, in_channels: int, out_channels: int, spatial: Sequence[int] | None = None
) -> nn.Module:
    """A network from image_BCXYZ to logits_BKXYZ of the same size.

    In training mode a U-Net with deep supervision returns a list: those logits, then coarser ones, each at its own
    level's size. spatial: the size it will be given, checked against `size_divisor`. Raises a ConfigError where the
    size does not fit or a package is missing.
    """
    settings = network_config(config)
    if spatial is not None:
        _check_size(settings, spatial)
    match settings:
        case UNetConfig():
            from pipeline.models.networks.unet import (
                UNet,  # each network loads what it is made of, when it is asked for
            )

            return UNet(settings, in_channels, out_channels)
        case VNetConfig():
            from pipeline.models.networks.vnet import ProjectedVNet  # loads MONAI

            return ProjectedVNet(settings, in_channels, out_channels)
        case SegResNetConfig():
            return _segresnet(settings, in_channels, out_channels)
        case SwinUNETRConfig():
            return _swinunetr(settings, in_channels, out_channels)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a sample's output depends on the others of its batch in training."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def _check_size(settings: AnyNetwork, spatial: Sequence[int]) -> None:
    divisor = size_divisor(settings)
    if any(size % step for size, step in zip(spatial, divisor, strict=True)):
        fitting = [max(round(size / step), 1) * step for size, step in zip(spatial, divisor, strict=True)]
        raise ConfigError(
            f"network {settings.name} takes sizes divisible by {list(divisor)}, but the patch is {list(spatial)}; "
            f"use {fitting}, or leave plan.patch_size open"
        )
    if not isinstance(settings, SegResNetConfig) and tuple(spatial) == divisor:
        raise ConfigError(
            f"network {settings.name} reduces a patch of {list(spatial)} to a single voxel, which has no variance to "
            f"normalise by; use a patch of at least {[2 * divisor[0], *divisor[1:]]} or, for a unet, fewer levels"
        )


def _segresnet(settings: SegResNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(
        spatial_dims=3,
        init_filters=settings.init_filters,
        in_channels=in_channels,
        out_channels=out_channels,
        dropout_prob=settings.dropout or None,
        blocks_down=settings.blocks_down,
        blocks_up=settings.blocks_up,
    )


def _swinunetr(settings: SwinUNETRConfig, in_channels: int, out_channels: int) -> nn.Module:
    if find_spec("einops") is None:
        raise missing_extra("einops", "swinunetr", "train.network.name=swinunetr")
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=settings.feature_size,
        depths=settings.depths,
        num_heads=settings.num_heads,
        drop_rate=settings.dropout,
        use_checkpoint=settings.use_checkpoint,
        spatial_dims=3,
    )


def check_gives_logits(network: nn.Module) -> None:
    """Refuses a network that ends in an activation: the losses here apply their own, and twice is wrong."""
    last = list(network.modules())[-1]
    if isinstance(last, nn.Softmax | nn.LogSoftmax | nn.Sigmoid | nn.LogSigmoid):
        raise ConfigError(
            f"the network ends in {type(last).__name__}, and the loss applies its own activation: it would be applied "
            "twice; let the network end in plain logits"
        )
