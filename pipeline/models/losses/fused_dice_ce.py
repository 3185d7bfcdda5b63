"""Dice + cross-entropy in one pass: MONAI's DiceCELoss without its one-hot target and intermediate copies.

Legend: B batch, K classes, V voxels. With p = softmax(logits), y the label, w its class weight:

    dice_bk  = 1 - (2 Σ_v p [y=k] + smooth_nr) / (Σ_v p + Σ_v [y=k] + smooth_dr)
    loss     = lambda_dice · mean_bk(weight_k · dice_bk) + lambda_ce · Σ w_y (-log p_y) / Σ w_y

The gradient is written out by hand. Forward keeps p and one number per voxel, backward turns p into the gradient in
place: one array of the logits' size in all. Both take few and long operations, since each waits once for all threads.
"""

from __future__ import annotations

from typing import Any

import torch

from pipeline.models.losses.dice_ce_terms import DiceCETerms
from pipeline.models.losses.fused_dice_ce_binary import BinaryDiceCE

_PIECE = 1 << 20
"""Numbers of which a copy may be made."""


class FusedDiceCE(DiceCETerms):
    """Softmax Dice + cross-entropy of logits_BKXYZ against label_BXYZ (class indices).

    Equal to MONAI's DiceCELoss(softmax=True, to_onehot_y=True) with the arguments of the same names; `class_weights`
    has one entry per class. Voxels whose label is `ignore` count nowhere. Under DistributedDataParallel the sums of
    `batch` and the sum of the voxels' weights run over all processes. Backward works once: it overwrites what forward
    kept.
    """

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        function = BinaryDiceCE if logits.shape[1] == 2 else _DiceCE
        return function.apply(logits.flatten(2), label.flatten(1), self)


class _DiceCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BKV: torch.Tensor, label_BV: torch.Tensor, loss: FusedDiceCE) -> torch.Tensor:
        batch, classes, voxels = logits_BKV.shape
        p_BKV = torch.empty_like(logits_BKV, dtype=torch.float32, memory_format=torch.contiguous_format)
        p_label_BV = p_BKV.new_empty((batch, voxels))
        intersection, predicted, reference = p_BKV.new_empty((3, batch, classes)).unbind()
        entropy, weight_sum = p_BKV.new_zeros(2).unbind()
        for b in range(batch):
            label_V, valid_V = _valid(label_BV[b], loss.ignore)
            torch.log_softmax(logits_BKV[b], 0, dtype=torch.float32, out=p_BKV[b])
            log_p_label_V = p_BKV[b].view(-1).index_select(0, _places(label_V))
            p_KV, p_label_V = p_BKV[b].exp_(), torch.exp(log_p_label_V, out=p_label_BV[b])
            weight_V = _voxel_weights(loss, label_V, valid_V)
            entropy -= log_p_label_V.sum() if weight_V is None else torch.dot(log_p_label_V, weight_V)
            weight_sum += voxels if weight_V is None else weight_V.sum()
            if valid_V is not None:
                p_KV *= valid_V
                p_label_V *= valid_V
            intersection[b] = _sum_by_label(p_label_V, label_V, classes)
            predicted[b] = torch.linalg.vector_norm(p_KV, dim=1).square_() if loss.squared_pred else p_KV.sum(1)
            ones_V = p_BKV.new_ones(1).expand(voxels) if valid_V is None else valid_V
            reference[b] = _sum_by_label(ones_V, label_V, classes)
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
        batch, classes, _ = p_BKV.shape
        on_intersection = (ctx.by_intersection * (loss.lambda_dice * outer[0])).expand(batch, classes)
        on_predicted = (ctx.by_predicted * (loss.lambda_dice * outer[0])).expand(batch, classes)
        on_entropy = ctx.entropy_scale * outer[0]
        for b in range(batch):
            label_V, valid_V = _valid(label_BV[b], loss.ignore)
            at_label_V = on_intersection[b].index_select(0, label_V).mul_(p_label_BV[b])
            weight_V = _voxel_weights(loss, label_V, valid_V)
            entropy_V = on_entropy if weight_V is None else weight_V * on_entropy
            _times_slope(p_BKV[b], on_predicted[b], at_label_V, entropy_V, loss.squared_pred)
            p_BKV[b].view(-1).scatter_add_(0, _places(label_V), at_label_V.sub_(entropy_V))
        return p_BKV.to(ctx.dtype), None, None


def _times_slope(
    p_KV: torch.Tensor, on_predicted_K: torch.Tensor, at_label_V: torch.Tensor, entropy_V: torch.Tensor, squared: bool
) -> None:
    """p_k (s_k - Σ_j p_j s_j - at_label + entropy) in place of p, where s is `on_predicted_K`, times 2p if squared."""
    pieces = p_KV.split(max(_PIECE // p_KV.shape[1], 1))
    slopes = on_predicted_K.split(max(_PIECE // p_KV.shape[1], 1))
    mean_V = at_label_V - entropy_V
    for p_kV, slope_k in zip(pieces, slopes, strict=True):
        mean_V += p_kV.square().t() @ (2 * slope_k) if squared else p_kV.t() @ slope_k
    for p_kV, slope_k in zip(pieces, slopes, strict=True):
        p_kV *= (p_kV * (2 * slope_k)[:, None] if squared else slope_k[:, None]) - mean_V


def _valid(label_V: torch.Tensor, ignore: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The label as indices with ignored voxels set to 0, and 1.0 where a voxel counts (None: everywhere)."""
    label_V = label_V.long()
    if ignore is None:
        return label_V, None
    valid_V = label_V != ignore
    return label_V * valid_V, valid_V.float()


def _places(label_V: torch.Tensor) -> torch.Tensor:
    """Where in a flat array (K, V) [label, voxel] lies: far quicker to index than with gather along the class axis."""
    return torch.arange(len(label_V), device=label_V.device).add_(label_V, alpha=len(label_V))


def _sum_by_label(values_V: torch.Tensor, label_V: torch.Tensor, classes: int) -> torch.Tensor:
    """The sum (K,) of the values of each label, in float64; bincount would make the CPU wait for a GPU."""
    return values_V.new_zeros(classes, dtype=torch.float64).scatter_add_(0, label_V, values_V.double())


def _voxel_weights(loss: FusedDiceCE, label_V: torch.Tensor, valid_V: torch.Tensor | None) -> torch.Tensor | None:
    if loss.class_weights is None:
        return valid_V
    weight_V = loss.class_weights.index_select(0, label_V)
    return weight_V if valid_V is None else weight_V * valid_V
