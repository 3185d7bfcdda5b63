"""From settings to a loss: MONAI's losses behind one signature, loss(logits_BKXYZ, label_BXYZ).

The label is stored small: the class index per voxel, or one bit per structure where structures overlap. Ignored voxels
hold one value (`labels.ignore_index`) and do not exist for any loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss
from torch import nn

from pipeline.models.losses.cross_entropy import CrossEntropy
from pipeline.models.losses.focal_loss import Focal
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.losses.loss_config import (
    AnyLoss,
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    DiceFocalConfig,
    DiceTopKConfig,
    FocalConfig,
    GeneralizedDiceConfig,
    TverskyConfig,
    resolve_class_weights,
    uses_sigmoid,
)
from pipeline.models.losses.weighted_loss_sum import Term, WeightedLossSum


def build_loss(
    config: AnyLoss,
    out_channels: int,
    overlapping: bool = False,
    inverse_frequency: Sequence[float] | None = None,
    ignore: int | None = None,
) -> nn.Module:
    """The loss as loss(logits_BKXYZ, label_BXYZ) -> scalar.

    inverse_frequency: the weights that class_weights: inverse_frequency stands for (`Plan.class_weights`). ignore: the
    label value of voxels that do not count. Raises a ConfigError where loss and data do not go together.
    """
    sigmoid = uses_sigmoid(config, overlapping)
    given = resolve_class_weights(config, out_channels, inverse_frequency)
    weights = None if given is None else torch.tensor(given, dtype=torch.float32)
    if isinstance(config, DiceCEConfig) and not sigmoid:
        lambda_dice, lambda_ce = config.weights
        return FusedDiceCE(
            include_background=config.include_background,
            batch=config.batch,
            squared_pred=config.squared_pred,
            smooth_nr=config.smooth_nr,
            smooth_dr=config.smooth_dr,
            lambda_dice=lambda_dice,
            lambda_ce=lambda_ce,
            class_weights=weights,
            ignore=ignore,
        )
    return WeightedLossSum(_terms(config, sigmoid, overlapping, weights), out_channels, overlapping, ignore)


def _terms(
    config: AnyLoss, sigmoid: bool, overlapping: bool, weights: torch.Tensor | None
) -> list[tuple[float, Term, bool]]:
    act = {"sigmoid": sigmoid, "softmax": not sigmoid}
    regional = {
        "include_background": overlapping or getattr(config, "include_background", True),
        "batch": getattr(config, "batch", False),
        "smooth_nr": getattr(config, "smooth_nr", 0.0),
        "smooth_dr": getattr(config, "smooth_dr", 0.0),
    }
    by_sample = not regional["batch"]
    kept = None if weights is None else weights if regional["include_background"] else weights[1:]

    def dice(squared_pred: bool) -> Term:
        return DiceLoss(**act, **regional, squared_pred=squared_pred, weight=kept)

    def focal(gamma: float, alpha: float | None, background: bool) -> Term:
        return Focal(sigmoid, gamma, alpha, weights, background)

    match config:
        case DiceConfig():
            return [(1.0, dice(config.squared_pred), by_sample)]
        case CrossEntropyConfig():
            return [(1.0, CrossEntropy(sigmoid, weights, label_smoothing=config.label_smoothing), False)]
        case DiceCEConfig(weights=(lambda_dice, lambda_ce)):
            entropy = CrossEntropy(sigmoid, weights)
            return [(lambda_dice, dice(config.squared_pred), by_sample), (lambda_ce, entropy, False)]
        case DiceFocalConfig():
            return [
                (config.lambda_dice, dice(config.squared_pred), by_sample),
                (config.lambda_focal, focal(config.gamma, None, background=True), False),
            ]
        case DiceTopKConfig():
            entropy = CrossEntropy(sigmoid, weights, top_percent=config.top_percent)
            return [(config.lambda_dice, dice(False), by_sample), (config.lambda_ce, entropy, False)]
        case FocalConfig():
            background = overlapping or config.include_background
            return [(1.0, focal(config.gamma, config.alpha, background), False)]
        case GeneralizedDiceConfig():
            return [(1.0, GeneralizedDiceLoss(**act, **regional, w_type=config.w_type), by_sample)]
        case TverskyConfig():
            return [(1.0, TverskyLoss(**act, **regional, alpha=config.alpha, beta=config.beta), by_sample)]
