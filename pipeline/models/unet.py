"""The U-Net: MONAI's DynUNet, with deep supervision at each level's own size.

MONAI scales coarse outputs up to full size before the loss; here they stay small and the label is reduced instead,
as nnU-Net does it, which costs an eighth of the work per level. Parameters and their names are DynUNet's.
"""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet

from pipeline.models.network_config import UNetConfig

_NORMS = {"instance": ("instance", {"affine": True}), "batch": ("batch", {"affine": True})}


class UNet(DynUNet):
    """image_BCXYZ to logits_BKXYZ; while training with deep supervision, to a list of logits, finest first."""

    def __init__(self, settings: UNetConfig, in_channels: int, out_channels: int) -> None:
        strides, supervised = settings.strides or (), settings.deep_supervision or 0
        super().__init__(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=settings.kernel_size,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=settings.channels,
            dropout=settings.dropout or None,
            norm_name=_NORMS[settings.norm],
            deep_supervision=supervised > 0,
            deep_supr_num=max(supervised, 1),
            res_block=settings.residual,
        )
        # DynUNet holds every block a second time in a recursive chain, which would double the weights on disk.
        del self.skip_layers

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
        if not (self.training and self.deep_supervision):
            return logits
        coarser = zip(self.deep_supervision_heads, decoded[-2::-1], strict=False)
        return [logits, *(head(level) for head, level in coarser)]
