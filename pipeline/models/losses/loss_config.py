"""The losses by one word, as settings. Without torch; formulas and sources are in `docs/losses.md`.

Arguments that MONAI has too carry its names, but for class_weights. These count every channel of the network,
background first where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.base.errors import ConfigError
from pipeline.base.strict_model import StrictModel

ClassWeights = tuple[Annotated[float, Field(ge=0)], ...] | Literal["inverse_frequency"] | None


class _Loss(StrictModel):
    """What every loss has."""

    activation: Literal["auto", "softmax", "sigmoid"] = "auto"
    """auto: sigmoid where structures may overlap, else softmax. The network gives logits; the loss activates them."""
    one_vs_rest: bool = False
    """Asks for sigmoid although structures exclude one another: one yes-or-no question per class."""

    @model_validator(mode="after")
    def _asked_for_consistently(self) -> _Loss:
        if self.one_vs_rest and self.activation == "softmax":
            raise ValueError("one_vs_rest means a sigmoid per class; remove activation: softmax")
        return self


class _Regional(_Loss):
    """What the losses over regions (Dice and its kin) have."""

    include_background: bool = False
    """Whether the background's own term counts; without overlapping structures only."""
    batch: bool = False
    """Sum over the batch before dividing: steadier where many patches hold none of a structure."""
    smooth_nr: float = Field(default=1e-5, ge=0)
    """Added to the numerator. Not 0 and equal to smooth_dr: an absent structure that is not predicted costs nothing."""
    smooth_dr: float = Field(default=1e-5, ge=0)
    """Added to the denominator."""


class DiceConfig(_Regional):
    """Soft Dice. With squared_pred the V-Net paper's squared denominators (Milletari 2016)."""

    name: Literal["dice"] = "dice"
    squared_pred: bool = False
    class_weights: ClassWeights = None


class CrossEntropyConfig(_Loss):
    """Cross-entropy; binary cross-entropy per structure with sigmoid."""

    name: Literal["ce"] = "ce"
    class_weights: ClassWeights = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class DiceCEConfig(_Regional):
    """lambda_dice · Dice + lambda_ce · cross-entropy, in one pass that never builds a one-hot target."""

    name: Literal["dice_ce"] = "dice_ce"
    lambda_dice: float = Field(default=1.0, ge=0)
    lambda_ce: float = Field(default=1.0, ge=0)
    alpha: float | None = Field(default=None, ge=0, le=1)
    """One number instead of two: alpha · Dice + (1 - alpha) · cross-entropy."""
    squared_pred: bool = False
    class_weights: ClassWeights = None

    @model_validator(mode="after")
    def _one_way_to_weigh(self) -> DiceCEConfig:
        if self.alpha is not None and (self.lambda_dice, self.lambda_ce) != (1.0, 1.0):
            raise ValueError("give either alpha or lambda_dice and lambda_ce, not both")
        if self.weights == (0.0, 0.0):
            raise ValueError("lambda_dice and lambda_ce are both 0, so that nothing would be learned")
        return self

    @property
    def weights(self) -> tuple[float, float]:
        """The factors of Dice and of cross-entropy."""
        return (self.lambda_dice, self.lambda_ce) if self.alpha is None else (self.alpha, 1.0 - self.alpha)


class _TwoTerms(_Regional):
    """A regional term and another one."""

    lambda_dice: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _learns_something(self) -> _TwoTerms:
        if not any(getattr(self, name) for name in type(self).model_fields if name.startswith("lambda_")):
            raise ValueError("both lambdas are 0, so that nothing would be learned")
        return self


class DiceFocalConfig(_TwoTerms):
    """lambda_dice · Dice + lambda_focal · focal loss, which counts the background always, as cross-entropy does."""

    name: Literal["dice_focal"] = "dice_focal"
    lambda_focal: float = Field(default=1.0, ge=0)
    gamma: float = Field(default=2.0, ge=0)
    squared_pred: bool = False
    class_weights: ClassWeights = None


class DiceTopKConfig(_TwoTerms):
    """lambda_dice · Dice + lambda_ce · cross-entropy over the hardest voxels (nnU-Net's TopK)."""

    name: Literal["dice_topk"] = "dice_topk"
    lambda_ce: float = Field(default=1.0, ge=0)
    top_percent: float = Field(default=10.0, gt=0, le=100)
    """Percent of the batch's voxels, those with the largest cross-entropy, whose mean is taken."""
    class_weights: ClassWeights = None


class FocalConfig(_Loss):
    """Focal loss (Lin 2017)."""

    name: Literal["focal"] = "focal"
    include_background: bool = True
    gamma: float = Field(default=2.0, ge=0)
    alpha: float | None = Field(default=None, ge=0, le=1)
    """Weight of the foreground in each channel, 1 - alpha of the rest."""
    class_weights: ClassWeights = None


class GeneralizedDiceConfig(_Regional):
    """Generalised Dice (Sudre 2017): classes weighed by the inverse of their squared volume."""

    name: Literal["generalized_dice"] = "generalized_dice"
    include_background: bool = True
    w_type: Literal["square", "simple", "uniform"] = "square"


class TverskyConfig(_Regional):
    """Tversky (Salehi 2017): alpha weighs false positives, beta false negatives; 0.5 and 0.5 is Dice."""

    name: Literal["tversky"] = "tversky"
    alpha: float = Field(default=0.3, ge=0)
    beta: float = Field(default=0.7, ge=0)


AnyLoss = (
    DiceConfig
    | CrossEntropyConfig
    | DiceCEConfig
    | DiceFocalConfig
    | DiceTopKConfig
    | FocalConfig
    | GeneralizedDiceConfig
    | TverskyConfig
)
LossConfig = Annotated[AnyLoss, Field(discriminator="name")]


def uses_sigmoid(config: AnyLoss, overlapping: bool) -> bool:
    """Whether channels are activated one by one (sigmoid) and not against each other (softmax).

    Raises a ConfigError where the configuration asks for what does not suit structures that overlap, or that do not.
    """
    if overlapping and config.activation == "softmax":
        raise ConfigError(
            "train.loss.activation: softmax lets each voxel belong to one class only, but the structures of this data "
            "overlap; use sigmoid or auto"
        )
    if not overlapping and config.activation == "sigmoid" and not config.one_vs_rest:
        raise ConfigError(
            "train.loss.activation: sigmoid answers yes or no per class, but the structures of this data exclude one "
            "another; use softmax or auto, or ask for it with train.loss.one_vs_rest: true"
        )
    return overlapping or config.one_vs_rest


def resolve_class_weights(
    config: AnyLoss, out_channels: int, inverse_frequency: Sequence[float] | None
) -> tuple[float, ...] | None:
    """The weight of each channel, None where the loss has none; a ConfigError where they do not suit the channels."""
    given = getattr(config, "class_weights", None)
    if given is None:
        return None
    if given == "inverse_frequency":
        if inverse_frequency is None:
            raise ConfigError(
                "train.loss.class_weights: inverse_frequency needs the class volumes of the training data, which the "
                "plan does not hold; run plan again, or give one weight per channel"
            )
        given = inverse_frequency
    if len(given) != out_channels:
        raise ConfigError(
            f"train.loss.class_weights has {len(given)} weights, but the network has {out_channels} channels "
            "(background first, then the structures; no background where they overlap); give one weight per channel"
        )
    if not any(given):
        raise ConfigError("train.loss.class_weights are all 0, so that nothing would be learned")
    return tuple(given)


def sums_over_batch(config: AnyLoss) -> bool:
    """Whether the regional term of a batch, or its choice of voxels, is not the mean of those of its samples."""
    return bool(getattr(config, "batch", False)) or isinstance(config, DiceTopKConfig)


def is_mean_of_samples(config: AnyLoss, ignore: int | None) -> bool:
    """Whether the loss of a batch is the mean of the losses of its samples; weighted voxels are counted over all."""
    if sums_over_batch(config):
        return False
    if ignore is not None:  # samples have more or fewer voxels that count
        return isinstance(config, DiceConfig | GeneralizedDiceConfig | TverskyConfig)
    return getattr(config, "class_weights", None) is None or isinstance(config, DiceConfig | FocalConfig)
