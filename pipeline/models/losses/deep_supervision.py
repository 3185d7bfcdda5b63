"""Labels at the size of a network's coarser outputs, for deep supervision."""

from __future__ import annotations

import torch


def downsample_label(label_BXYZ: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The label at the size of a coarser level: the nearest voxel's, untouched, whatever its type and meaning.

    By index: as floats, 24 bits would be left of a mask of overlapping structures, and not all marks of ignored voxels.
    """
    for axis, (given, wanted) in enumerate(zip(label_BXYZ.shape[1:], logits.shape[2:], strict=True), start=1):
        if given != wanted:
            centres = 2 * torch.arange(wanted, device=label_BXYZ.device) + 1  # in halves of a coarse voxel
            label_BXYZ = label_BXYZ.index_select(axis, centres * given // (2 * wanted))
    return label_BXYZ
