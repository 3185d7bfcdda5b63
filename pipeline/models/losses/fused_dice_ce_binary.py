"""Dice + cross-entropy for two classes, where softmax is one sigmoid: of d = logit_1 - logit_0, p_1 = σ(d).

Value and gradient are those of `fused_dice_ce.py`, with a third of the passes over memory: one number per voxel says
everything. With y the label, g_k = dDice/dp_k and w the voxel's weight:

    cross-entropy of a voxel = softplus((1 - 2y) d)
    dloss/dlogit_1 = p_1 (1 - p_1) (g_1 - g_0) + ce · w (p_1 - y) = -dloss/dlogit_0
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from pipeline.models.losses.dice_ce_terms import DiceCETerms

_PIECE = 1 << 16
"""Voxels per piece: the few arrays of that length (256 KiB) that are in use stay in the cache."""


class BinaryDiceCE(torch.autograd.Function):
    """`FusedDiceCE` of logits with two channels. Backward works once: it overwrites what forward kept."""

    @staticmethod
    def forward(ctx: Any, logits_BKV: torch.Tensor, label_BV: torch.Tensor, loss: DiceCETerms) -> torch.Tensor:
        batch, _, voxels = logits_BKV.shape
        p_BV = logits_BKV.new_empty((batch, voxels), dtype=torch.float32)
        intersection, predicted, reference = p_BV.new_zeros((3, batch, 2)).unbind()
        entropy, weight_sum = p_BV.new_zeros(2).unbind()
        for b, piece in _pieces(batch, voxels):
            y_V, valid_V = _label(label_BV[b, piece], loss.ignore)
            weight_V = _weights(loss, y_V, valid_V)
            p_V = p_BV[b, piece]
            torch.sub(logits_BKV[b, 1, piece], logits_BKV[b, 0, piece], out=p_V)
            entropy_V = F.softplus(p_V * (1 - 2 * y_V))
            entropy += entropy_V.sum() if weight_V is None else torch.dot(entropy_V, weight_V)
            weight_sum += y_V.numel() if weight_V is None else weight_V.sum()
            if loss.include_background:
                _count(0, 1 - y_V, torch.sigmoid(-p_V), valid_V, loss, intersection[b], predicted[b], reference[b])
            _count(1, y_V, p_V.sigmoid_(), valid_V, loss, intersection[b], predicted[b], reference[b])
        dice, ctx.by_intersection, ctx.by_predicted = loss.of_sums(intersection, predicted, reference)
        ctx.entropy_scale = loss.entropy_scale(weight_sum)
        ctx.loss, ctx.dtype, ctx.kept = loss, logits_BKV.dtype, [p_BV]
        ctx.save_for_backward(label_BV)
        return loss.lambda_dice * dice + ctx.entropy_scale * entropy

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (label_BV,) = ctx.saved_tensors
        loss: DiceCETerms = ctx.loss
        p_BV: torch.Tensor = ctx.kept.pop()
        batch, voxels = p_BV.shape
        scale = loss.lambda_dice * outer[0]
        on_intersection = (ctx.by_intersection * scale).expand(batch, 2)
        on_predicted = (ctx.by_predicted * scale).expand(batch, 2)
        on_entropy = ctx.entropy_scale * outer[0]
        gradient_BKV = p_BV.new_empty((batch, 2, voxels), dtype=ctx.dtype)
        for b, piece in _pieces(batch, voxels):
            y_V, valid_V = _label(label_BV[b, piece], loss.ignore)
            weight_V = _weights(loss, y_V, valid_V)
            p_V = p_BV[b, piece]
            (inner_0, inner_1), (outer_0, outer_1) = on_intersection[b].unbind(), on_predicted[b].unbind()
            if loss.squared_pred:
                slope_V = y_V * (inner_0 + inner_1) + 2 * (outer_0 + outer_1) * p_V - (inner_0 + 2 * outer_0)
            else:
                slope_V = torch.add(outer_1 - outer_0 - inner_0, y_V * (inner_0 + inner_1))
            slope_V *= torch.addcmul(p_V, p_V, p_V, value=-1)
            if valid_V is not None:
                slope_V *= valid_V
            p_V -= y_V
            p_V *= on_entropy
            if weight_V is not None:
                p_V *= weight_V
            p_V += slope_V
            gradient_BKV[b, 1, piece] = p_V
            torch.neg(gradient_BKV[b, 1, piece], out=gradient_BKV[b, 0, piece])
        return gradient_BKV, None, None


def _count(
    k: int,
    is_k_V: torch.Tensor,
    p_V: torch.Tensor,
    valid_V: torch.Tensor | None,
    loss: DiceCETerms,
    intersection: torch.Tensor,
    predicted: torch.Tensor,
    reference: torch.Tensor,
) -> None:
    """Adds a class's three sums over a piece."""
    if valid_V is not None:
        p_V, is_k_V = p_V * valid_V, is_k_V * valid_V
    intersection[k] += torch.dot(is_k_V, p_V)
    predicted[k] += torch.dot(p_V, p_V) if loss.squared_pred else p_V.sum()
    reference[k] += is_k_V.sum()


def _pieces(batch: int, voxels: int) -> list[tuple[int, slice]]:
    return [(b, slice(first, min(first + _PIECE, voxels))) for b in range(batch) for first in range(0, voxels, _PIECE)]


def _label(label_V: torch.Tensor, ignore: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """1.0 where the label is 1, and 1.0 where a voxel counts (None: everywhere)."""
    if ignore is None:
        return label_V.float(), None
    return (label_V == 1).float(), (label_V != ignore).float()


def _weights(loss: DiceCETerms, y_V: torch.Tensor, valid_V: torch.Tensor | None) -> torch.Tensor | None:
    if loss.class_weights is None:
        return valid_V
    of_background, of_structure = loss.class_weights.unbind()
    weight_V = of_background + y_V * (of_structure - of_background)
    return weight_V if valid_V is None else weight_V * valid_V
