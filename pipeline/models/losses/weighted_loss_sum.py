"""A weighted sum of losses over the voxels that are not ignored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
