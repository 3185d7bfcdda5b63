"""The U-Net as nnU-Net builds it, in torch alone: parameters, names and results are those of MONAI's DynUNet.

It is written out here so that applying a model does not import MONAI, which takes longer than segmenting a small scan.
Deep supervision differs: MONAI scales coarse outputs up to full size before the loss; here they stay small and the
label is reduced instead, as nnU-Net does it, which costs an eighth of the work per level.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from pipeline.models.networks.network_config import Triple, UNetConfig

_SLOPE = 0.01
_NORMS = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}


class UNet(nn.Module):
    """image_BCXYZ to logits_BKXYZ; while training with deep supervision, to a list of logits, finest first."""

    def __init__(self, settings: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        channels, strides, kernels = settings.channels or (), settings.strides or (), settings.kernel_size or ()
        block = _ResidualBlock if settings.residual else _Block
        norm, dropout = settings.norm, settings.dropout
        ends = list(zip((in_channels, *channels), channels, kernels, strides, strict=False))
        blocks = [block(inner, outer, kernel, stride, norm, dropout) for inner, outer, kernel, stride in ends]
        self.input_block, self.bottleneck = blocks[0], blocks[-1]
        self.downsamples = nn.ModuleList(blocks[1:-1])
        levels = range(len(channels) - 1, 0, -1)
        self.upsamples = nn.ModuleList(
            _UpBlock(channels[level], channels[level - 1], kernels[level], strides[level], norm, dropout)
            for level in levels
        )
        self.output_block = _Head(channels[0], out_channels, dropout)
        self.deep_supervision_heads = nn.ModuleList(
            _Head(channels[level], out_channels, dropout) for level in range(1, 1 + (settings.deep_supervision or 0))
        )
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        skips = [self.input_block(image)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        features = self.bottleneck(skips[-1])
        decoded = []
        for up, skip in zip(self.upsamples, reversed(skips), strict=True):
            features = up(features, skip)
            decoded.append(features)
        logits = self.output_block(features)
        if not (self.training and self.deep_supervision_heads):
            return logits
        coarser = zip(self.deep_supervision_heads, decoded[-2::-1], strict=False)
        return [logits, *(head(level) for head, level in coarser)]


class _Block(nn.Module):
    """Twice convolution, norm, leaky ReLU; the first convolution has the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, norm: str, dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels, kernel, stride, dropout)
        self.conv2 = _convolution(out_channels, out_channels, kernel, (1, 1, 1), dropout)
        self.lrelu = nn.LeakyReLU(_SLOPE, inplace=True)
        self.norm1 = _NORMS[norm](out_channels, affine=True)
        self.norm2 = _NORMS[norm](out_channels, affine=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.lrelu(self.norm1(self.conv1(features)))
        return self.lrelu(self.norm2(self.conv2(features)))


class _ResidualBlock(_Block):
    """The same around a shortcut, which is projected where channels or size change."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, norm: str, dropout: float
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, norm, dropout)
        self.projects = in_channels != out_channels or max(stride) > 1
        if self.projects:
            self.conv3 = _convolution(in_channels, out_channels, (1, 1, 1), stride, dropout)
            self.norm3 = _NORMS[norm](out_channels, affine=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shortcut = self.norm3(self.conv3(features)) if self.projects else features
        features = self.lrelu(self.norm1(self.conv1(features)))
        return self.lrelu(self.norm2(self.conv2(features)) + shortcut)


class _UpBlock(nn.Module):
    """A transposed convolution to the finer level, joined with what the encoder saw there."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, norm: str, dropout: float
    ) -> None:
        super().__init__()
        up = nn.ConvTranspose3d(in_channels, out_channels, stride, stride, bias=False)
        self.transp_conv = _with_dropout(up, dropout)
        self.conv_block = _Block(2 * out_channels, out_channels, kernel, (1, 1, 1), norm, dropout)

    def forward(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv_block(torch.cat([self.transp_conv(features), skip], dim=1))


class _Head(nn.Module):
    """Features to logits."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, (1, 1, 1), (1, 1, 1), dropout, bias=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.conv(features)


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: Triple,
    stride: Triple,
    dropout: float,
    bias: bool = False,
) -> nn.Module:
    x, y, z = ((size - step + 1) // 2 for size, step in zip(kernel, stride, strict=True))
    convolution = nn.Conv3d(in_channels, out_channels, kernel, stride, (x, y, z), bias=bias)
    return _with_dropout(convolution, dropout)


def _with_dropout(convolution: nn.Module, dropout: float) -> nn.Module:
    """The convolution under the name `conv`, as in MONAI's state dict, and behind it dropout where there is any."""
    parts = OrderedDict(conv=convolution)
    if dropout:
        parts["drop"] = nn.Dropout(dropout)
    return nn.Sequential(parts)


def _initialise(module: nn.Module) -> None:
    """He's initialisation for leaky ReLU, biases 0, as nnU-Net and DynUNet begin."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0)
