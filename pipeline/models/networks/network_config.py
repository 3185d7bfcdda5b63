"""The networks by one word, as settings. Without torch: configurations are read before anything heavy is imported.

Whatever is left open (None) is decided by planning and frozen in `plan.json`. To add a network: a config class here,
joined to `NetworkConfig`, and its builder in `pipeline.models.networks.build_network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from pipeline.base.strict_model import StrictModel

Triple = tuple[int, int, int]


class UNetConfig(StrictModel):
    """3D U-Net (Çiçek 2016) as nnU-Net builds it: MONAI's DynUNet, with weights that are interchangeable with it."""

    name: Literal["unet"] = "unet"
    channels: tuple[int, ...] | None = Field(default=None, min_length=3)
    """Channels per level, finest first."""
    strides: tuple[Triple, ...] | None = None
    """Per level and axis, the first (1, 1, 1); an axis with thick slices is halved later than the others."""
    kernel_size: tuple[Triple, ...] | None = None
    """Per level and axis: 1 across slices that are still much thicker than the pixels, else 3."""
    residual: bool = False
    """Residual blocks in encoder and bottleneck."""
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability with which single values are dropped behind every convolution."""
    deep_supervision: int | None = Field(default=None, ge=0)
    """Coarser levels that get their own loss in training; None: all but the two coarsest, at least one."""

    @field_validator("strides", "kernel_size")
    @classmethod
    def _whole_steps(cls, levels: tuple[Triple, ...] | None, info: ValidationInfo) -> tuple[Triple, ...] | None:
        sizes = [size for level in levels or () for size in level]
        if sizes and min(sizes) < 1:
            raise ValueError(f"has {min(sizes)} in it; every entry must be at least 1")
        if info.field_name == "kernel_size" and any(size % 2 == 0 for size in sizes):
            raise ValueError("has an even number in it; kernels need a middle, so 1, 3, 5, ...")
        return levels

    @field_validator("channels")
    @classmethod
    def _positive(cls, channels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if channels is not None and min(channels) < 1:
            raise ValueError("must be positive, for instance [16, 32, 64, 128]")
        return channels

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetConfig:
        given = {"channels": self.channels, "strides": self.strides, "kernel_size": self.kernel_size}
        lengths = {key: len(value) for key, value in given.items() if value is not None}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"channels, strides and kernel_size need one entry per level, but {found}")
        if self.strides is not None and self.strides[0] != (1, 1, 1):
            raise ValueError(
                f"strides must begin with [1, 1, 1] (the finest level is not halved), got {self.strides[0]}"
            )
        levels = next(iter(lengths.values()), None)  # else planning chooses them, and looks at this again
        if levels is not None and self.deep_supervision is not None and self.deep_supervision > levels - 2:
            raise ValueError(f"deep_supervision can be at most {levels - 2} with {levels} levels")
        return self


class VNetConfig(StrictModel):
    """V-Net (Milletari 2016): residual, 5×5×5 kernels, PReLU as in the paper. MONAI's, five levels from 16 channels.

    Any number of input channels works: where it does not divide 16, a 1×1×1 convolution projects it to one that does.
    Batch norm is MONAI's addition; the paper had none.
    """

    name: Literal["vnet"] = "vnet"
    act: Literal["prelu", "elu"] = "prelu"
    norm: Literal["batch", "instance"] = "batch"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability with which whole channels are dropped; the paper used none, MONAI's default is 0.5."""


class SegResNetConfig(StrictModel):
    """SegResNet (Myronenko 2018) without its autoencoder branch: MONAI's, group norm, residual encoder."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: int | None = Field(default=None, ge=8, multiple_of=8)
    """Channels of the finest level, a multiple of 8 for group norm; doubled level by level."""
    blocks_down: tuple[int, ...] = Field(default=(1, 2, 2, 4), min_length=2)
    """Residual blocks per level of the encoder."""
    blocks_up: tuple[int, ...] | None = None
    """Blocks per level of the decoder, one entry fewer; None: one each."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _levels_agree(self) -> SegResNetConfig:
        if self.blocks_up is not None and len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up needs one entry fewer than blocks_down ({len(self.blocks_down) - 1}), "
                f"got {len(self.blocks_up)}"
            )
        return self


class SwinUNETRConfig(StrictModel):
    """Swin UNETR (Hatamizadeh 2022): MONAI's; needs the extra `swinunetr` and sizes divisible by 32."""

    name: Literal["swinunetr"] = "swinunetr"
    feature_size: int | None = Field(default=None, ge=12, multiple_of=12)
    """Width, a multiple of 12; the paper's is 48."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    use_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SwinUNETRConfig:
        widths = [(self.feature_size or 24) * 2**level for level in range(4)]
        if any(heads < 1 or width % heads for width, heads in zip(widths, self.num_heads, strict=True)):
            raise ValueError(f"num_heads {list(self.num_heads)} must divide the widths of the levels, {widths}")
        return self


AnyNetwork = UNetConfig | VNetConfig | SegResNetConfig | SwinUNETRConfig
NetworkConfig = Annotated[AnyNetwork, Field(discriminator="name")]

_ADAPTER: TypeAdapter[AnyNetwork] = TypeAdapter(NetworkConfig)


def network_config(values: Mapping[str, Any] | AnyNetwork) -> AnyNetwork:
    """A network's settings from plain values (such as `Plan.network`), with every open setting filled in."""
    config = _ADAPTER.validate_python(dict(values)) if isinstance(values, Mapping) else values
    match config:
        case UNetConfig():
            fewest = max(4, (config.deep_supervision or 0) + 2)
            levels = len(config.channels or config.strides or config.kernel_size or (0,) * fewest)
            return config.model_copy(
                update={
                    "channels": config.channels or tuple(min(16 * 2**level, 320) for level in range(levels)),
                    "strides": config.strides or ((1, 1, 1),) + ((2, 2, 2),) * (levels - 1),
                    "kernel_size": config.kernel_size or ((3, 3, 3),) * levels,
                    "deep_supervision": min(max(levels - 3, 1), levels - 2)
                    if config.deep_supervision is None
                    else config.deep_supervision,
                }
            )
        case SegResNetConfig():
            blocks_up = config.blocks_up or (1,) * (len(config.blocks_down) - 1)
            return config.model_copy(update={"init_filters": config.init_filters or 16, "blocks_up": blocks_up})
        case SwinUNETRConfig():
            return config.model_copy(update={"feature_size": config.feature_size or 24})
        case _:
            return config


def size_divisor(values: Mapping[str, Any] | AnyNetwork) -> Triple:
    """Per axis, the number that the sizes of the network's input must be divisible by."""
    match network_config(values):
        case UNetConfig(strides=strides):
            products = [1, 1, 1]
            for stride in strides or ():
                products = [product * step for product, step in zip(products, stride, strict=True)]
            return (products[0], products[1], products[2])
        case VNetConfig():
            return (16, 16, 16)
        case SegResNetConfig(blocks_down=blocks_down):
            factor = 2 ** (len(blocks_down) - 1)
            return (factor, factor, factor)
        case SwinUNETRConfig():
            return (32, 32, 32)
