"""Dice + cross-entropy in one pass: MONAI's DiceCELoss without its one-hot target and intermediate copies.

Legend: B batch, K classes, V voxels. With p = softmax(logits), y the label, w its class weight:

    dice_bk  = 1 - (2 Σ_v p [y=k] + smooth_nr) / (Σ_v p + Σ_v [y=k] + smooth_dr)
    loss     = lambda_dice · mean_bk(weight_k · dice_bk) + lambda_ce · Σ w_y (-log p_y) / Σ w_y

The gradient is written out by hand. Forward keeps p and one number per voxel, backward turns p into the gradient in
place, and both go through the voxels in pieces that stay in the cache: one array of the logits' size in all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pipeline.models.dice_ce_binary import BinaryDiceCE

_PIECE = 1 << 19
"""Numbers per piece (2 MiB of float32): large enough that starting each operation costs little, and in the cache."""


class FusedDiceCE(nn.Module):
    """Softmax Dice + cross-entropy of logits_BKXYZ against label_BXYZ (class indices).

    Equal to MONAI's DiceCELoss(softmax=True, to_onehot_y=True) with the arguments of the same names; `class_weights`
    has one entry per class. Voxels whose label is `ignore` count nowhere. Under DistributedDataParallel the sums of
    `batch` and the sum of the voxels' weights run over all processes. Backward works once: it overwrites what forward
    kept.
    """

    class_weights: torch.Tensor | None

    def __init__(
        self,
        include_background: bool = False,
        batch: bool = False,
        squared_pred: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        class_weights: torch.Tensor | None = None,
        ignore: int | None = None,
    ) -> None:
        super().__init__()
        self.include_background, self.batch, self.squared_pred = include_background, batch, squared_pred
        self.smooth_nr, self.smooth_dr = smooth_nr, smooth_dr
        self.lambda_dice, self.lambda_ce, self.ignore = lambda_dice, lambda_ce, ignore
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        function = BinaryDiceCE if logits.shape[1] == 2 else _DiceCE
        return function.apply(logits.flatten(2), label.flatten(1), self)

    def of_sums(
        self, intersection: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The Dice term from its three sums (B, K), and its derivatives by the first two."""
        processes = 1
        if self.batch:
            sums = torch.stack([intersection, predicted, reference]).sum(1, keepdim=True)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
                processes = dist.get_world_size()
            intersection, predicted, reference = sums.unbind()
        numerator = 2 * intersection + self.smooth_nr
        denominator = predicted + reference + self.smooth_dr
        alone = numerator.shape[1] == 2 and not self.include_background  # MONAI does not weigh a single class
        weight = torch.ones_like(numerator)
        if self.class_weights is not None and not alone:
            weight = self.class_weights.expand_as(numerator)
        if not self.include_background:
            weight = torch.cat([torch.zeros_like(weight[:, :1]), weight[:, 1:]], 1)
        weight = weight / (weight.shape[0] * (weight.shape[1] - (not self.include_background)))
        value = (weight * (1 - numerator / denominator)).sum()
        # DistributedDataParallel takes the mean of the processes' gradients, but here they are parts of one sum.
        weight = weight * processes
        return value, -2 * weight / denominator, weight * numerator / denominator**2

    def entropy_scale(self, weight_sum: torch.Tensor) -> torch.Tensor:
        """What the sum of weighted cross-entropies is multiplied by, from the sum of the voxels' weights.

        With several processes it is their mean sum: the mean of their gradients is exact then.
        """
        unequal = self.class_weights is not None or self.ignore is not None
        if unequal and dist.is_available() and dist.is_initialized():
            dist.all_reduce(weight_sum)
            weight_sum /= dist.get_world_size()
        return self.lambda_ce / weight_sum.clamp_min(torch.finfo(torch.float32).tiny)


class _DiceCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BKV: torch.Tensor, label_BV: torch.Tensor, loss: FusedDiceCE) -> torch.Tensor:
        batch, classes, voxels = logits_BKV.shape
        p_BKV = torch.empty_like(logits_BKV, dtype=torch.float32, memory_format=torch.contiguous_format)
        p_label_BV = p_BKV.new_empty((batch, voxels))
        intersection, predicted, reference = p_BKV.new_zeros((3, batch, classes)).unbind()
        entropy, weight_sum = p_BKV.new_zeros(2).unbind()
        for b, piece in _pieces(batch, classes, voxels):
            label_V, valid_V = _valid(label_BV[b, piece], loss.ignore)
            p_KV, places_V = p_BKV[b, :, piece], _places(b, piece, label_V, p_BKV)
            torch.sub(logits_BKV[b, :, piece], logits_BKV[b, :, piece].amax(0), out=p_KV)
            shifted_label_V = p_BKV.view(-1).index_select(0, places_V)
            total_V = p_KV.exp_().sum(0)
            p_KV /= total_V
            entropy_V = total_V.log_().sub_(shifted_label_V)
            weight_V = _voxel_weights(loss, label_V, valid_V)
            entropy += entropy_V.sum() if weight_V is None else torch.dot(entropy_V, weight_V)
            weight_sum += label_V.numel() if weight_V is None else weight_V.sum()
            if valid_V is not None:
                p_KV *= valid_V
            p_label_BV[b, piece] = p_label_V = p_BKV.view(-1).index_select(0, places_V)
            intersection[b].scatter_add_(0, label_V, p_label_V)
            predicted[b] += p_KV.square().sum(1) if loss.squared_pred else p_KV.sum(1)
            reference[b] += torch.bincount(label_V, valid_V, minlength=classes)
        dice, ctx.by_intersection, ctx.by_predicted = loss.of_sums(intersection, predicted, reference)
        ctx.entropy_scale = loss.entropy_scale(weight_sum)
        ctx.loss, ctx.dtype, ctx.kept = loss, logits_BKV.dtype, [p_BKV]
        ctx.save_for_backward(label_BV, p_label_BV)
        return loss.lambda_dice * dice + ctx.entropy_scale * entropy

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """d/dlogit_k = p_k (g_k - Σ_j p_j g_j) + ce · w (p_k - [y=k]), where g = dDice/dp is by_predicted (times 2p
        if squared) plus by_intersection at the label."""
        label_BV, p_label_BV = ctx.saved_tensors
        loss: FusedDiceCE = ctx.loss
        p_BKV: torch.Tensor = ctx.kept.pop()
        batch, classes, voxels = p_BKV.shape
        on_intersection = (ctx.by_intersection * (loss.lambda_dice * outer[0])).expand(batch, classes)
        on_predicted = (ctx.by_predicted * (loss.lambda_dice * outer[0])).expand(batch, classes)
        on_entropy = ctx.entropy_scale * outer[0]
        for b, piece in _pieces(batch, classes, voxels):
            label_V, valid_V = _valid(label_BV[b, piece], loss.ignore)
            p_KV = p_BKV[b, :, piece]
            at_label_V = on_intersection[b].index_select(0, label_V) * p_label_BV[b, piece]
            if loss.squared_pred:
                slope_KV = p_KV * (2 * on_predicted[b])[:, None]
                mean_V = (slope_KV * p_KV).sum(0).add_(at_label_V)
            else:
                slope_KV = on_predicted[b][:, None]
                mean_V = (on_predicted[b] @ p_KV).add_(at_label_V)
            weight_V = _voxel_weights(loss, label_V, valid_V)
            entropy_V = on_entropy if weight_V is None else weight_V * on_entropy
            p_KV *= slope_KV - mean_V.sub_(entropy_V)
            places_V = _places(b, piece, label_V, p_BKV)
            p_BKV.view(-1).scatter_add_(0, places_V, at_label_V.sub_(entropy_V))
            if valid_V is not None:
                p_KV *= valid_V
        return p_BKV.to(ctx.dtype), None, None


def _pieces(batch: int, classes: int, voxels: int) -> list[tuple[int, slice]]:
    step = max(_PIECE // classes, 1024)
    return [(b, slice(start, min(start + step, voxels))) for b in range(batch) for start in range(0, voxels, step)]


def _valid(label_V: torch.Tensor, ignore: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The label as indices with ignored voxels set to 0, and 1.0 where a voxel counts (None: everywhere)."""
    label_V = label_V.long()
    if ignore is None:
        return label_V, None
    valid_V = label_V != ignore
    return label_V * valid_V, valid_V.float()


def _places(b: int, piece: slice, label_V: torch.Tensor, like_BKV: torch.Tensor) -> torch.Tensor:
    """Where in the flat array [b, label, voxel] lies: far quicker to index than with gather along the class axis."""
    _, classes, voxels = like_BKV.shape
    first = b * classes * voxels
    voxel_V = torch.arange(first + piece.start, first + piece.stop, device=label_V.device)
    return voxel_V.add_(label_V, alpha=voxels)


def _voxel_weights(loss: FusedDiceCE, label_V: torch.Tensor, valid_V: torch.Tensor | None) -> torch.Tensor | None:
    if loss.class_weights is None:
        return valid_V
    weight_V = loss.class_weights.index_select(0, label_V)
    return weight_V if valid_V is None else weight_V * valid_V
