"""From settings to a loss: MONAI's losses behind one signature, loss(logits_BKXYZ, label_BXYZ).

The label is stored small: the class index per voxel, or one bit per structure where structures overlap. Ignored voxels
hold one value (`labels.ignore_index`) and do not exist for any loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss
from torch import nn
from torch.nn import functional as F

from pipeline.base.errors import ConfigError
from pipeline.models.losses.fused_dice_ce import LEAST_WEIGHT, FusedDiceCE
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

Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


class WeightedLossSum(nn.Module):
    """A weighted sum of terms, each of them term(logits_BKV, target_BKV) with a target of zeros and ones."""

    def __init__(
        self, terms: Sequence[tuple[float, Term, bool]], out_channels: int, overlapping: bool, ignore: int | None
    ) -> None:
        """terms: factor, function, and whether it works sample by sample (and not on all voxels at once)."""
        super().__init__()
        self.terms = list(terms)
        self.modules_of_terms = nn.ModuleList([term for _, term, _ in terms if isinstance(term, nn.Module)])
        self.out_channels, self.overlapping, self.ignore = out_channels, overlapping, ignore

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits_BKV, label_BV = logits.float().flatten(2), label.flatten(1).long()
        target_BKV = self._target(label_BV)
        valid_BV = None if self.ignore is None else label_BV != self.ignore
        return sum(
            (
                factor * _over_valid(term, by_sample, logits_BKV, target_BKV, valid_BV)
                for factor, term, by_sample in self.terms
            ),
            start=logits_BKV.new_zeros(()),
        )

    def _target(self, label_BV: torch.Tensor) -> torch.Tensor:
        classes = torch.arange(self.out_channels, device=label_BV.device)[:, None]
        if self.overlapping:
            return ((label_BV[:, None] >> classes) & 1).float()
        return (label_BV[:, None] == classes).float()


def _over_valid(
    term: Term, by_sample: bool, logits_BKV: torch.Tensor, target_BKV: torch.Tensor, valid_BV: torch.Tensor | None
) -> torch.Tensor:
    """The term over the voxels that count, as if the others had never been there."""
    if valid_BV is None:
        return term(logits_BKV, target_BKV)
    if not by_sample:
        picked = [tensor.transpose(1, 2)[valid_BV].T[None] for tensor in (logits_BKV, target_BKV)]
        return term(picked[0], picked[1]) if picked[0].numel() else logits_BKV.sum() * 0
    samples = [
        term(logits_KV[None, :, valid_V], target_KV[None, :, valid_V])
        for logits_KV, target_KV, valid_V in zip(logits_BKV, target_BKV, valid_BV, strict=True)
    ]
    return torch.stack(samples).mean()


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


class Focal(nn.Module):
    """MONAI's focal loss of logits_BKV and a target of zeros and ones: the mean over channels and voxels.

    Without `background` its channel is left out of the mean only. MONAI leaves its logit out of the softmax too, so
    that nothing holds structures and background apart, and with a single structure nothing is learned at all.
    """

    weights: torch.Tensor | None

    def __init__(
        self, sigmoid: bool, gamma: float, alpha: float | None, weights: torch.Tensor | None, background: bool
    ) -> None:
        super().__init__()
        self.each = FocalLoss(gamma=gamma, alpha=alpha, use_softmax=not sigmoid, reduction="none")
        self.first = 0 if background else 1
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits_BKV: torch.Tensor, target_BKV: torch.Tensor) -> torch.Tensor:
        losses = self.each(logits_BKV, target_BKV)
        if self.weights is not None:
            losses = losses * self.weights[:, None]
        return losses[:, self.first :].mean()


class CrossEntropy(nn.Module):
    """Cross-entropy of logits_BKV and a target of zeros and ones: torch's, over classes or (sigmoid) per structure.

    Class weights are weights of voxels: the mean is divided by their sum, as torch does for class indices. top_percent:
    the mean over that share of the voxels, those with the largest loss (weighted, divided by their number).
    """

    weights: torch.Tensor | None

    def __init__(
        self,
        sigmoid: bool,
        weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        top_percent: float | None = None,
    ) -> None:
        super().__init__()
        self.sigmoid, self.label_smoothing, self.top_percent = sigmoid, label_smoothing, top_percent
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits_BKV: torch.Tensor, target_BKV: torch.Tensor) -> torch.Tensor:
        reduction = "mean" if self.top_percent is None else "none"
        if self.sigmoid:
            smoothed = target_BKV * (1 - self.label_smoothing) + self.label_smoothing / 2
            weight = None if self.weights is None else self.weights[:, None]
            losses = F.binary_cross_entropy_with_logits(logits_BKV, smoothed, weight=weight, reduction=reduction)
        else:
            label_BV, weights = target_BKV.argmax(1), self.weights
            by_weight = weights is not None and self.top_percent is None
            losses = F.cross_entropy(
                logits_BKV,
                label_BV,
                weight=weights,
                label_smoothing=self.label_smoothing,
                reduction="none" if by_weight else reduction,
            )
            if weights is not None and by_weight:
                losses = _over_weights(losses, weights[label_BV].sum())
        if self.top_percent is None:
            return losses
        hardest = max(int(losses.numel() * self.top_percent / 100), 1)
        return losses.flatten().topk(hardest, sorted=False).values.mean()


def _over_weights(losses_BV: torch.Tensor, weight_sum: torch.Tensor) -> torch.Tensor:
    """The losses' sum, divided by that of the voxels' weights; 0 where no voxel has any, which torch makes 0 / 0."""
    mean = losses_BV.sum() / weight_sum.clamp_min(LEAST_WEIGHT)
    return torch.where(weight_sum > 0, mean, torch.zeros_like(mean))


def downsample_label(label_BXYZ: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The label at the size of a coarser level: the nearest voxel's, untouched, whatever its type and meaning.

    By index: as floats, 24 bits would be left of a mask of overlapping structures, and not all marks of ignored voxels.
    """
    for axis, (given, wanted) in enumerate(zip(label_BXYZ.shape[1:], logits.shape[2:], strict=True), start=1):
        if given != wanted:
            centres = 2 * torch.arange(wanted, device=label_BXYZ.device) + 1  # in halves of a coarse voxel
            label_BXYZ = label_BXYZ.index_select(axis, centres * given // (2 * wanted))
    return label_BXYZ


def check_gives_logits(network: nn.Module) -> None:
    """Refuses a network that ends in an activation: the losses here apply their own, and twice is wrong."""
    last = list(network.modules())[-1]
    if isinstance(last, nn.Softmax | nn.LogSoftmax | nn.Sigmoid | nn.LogSigmoid):
        raise ConfigError(
            f"the network ends in {type(last).__name__}, and the loss applies its own activation: it would be applied "
            "twice; let the network end in plain logits"
        )
