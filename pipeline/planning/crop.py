"""The crop to the box that is not background: whether it is worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.dataset.loaded_cases import Case
from pipeline.io.geometry import Grid
from pipeline.planning.normalisation import MOST_CASES

# A box with less than this share of an image is worth a crop.
_KEPT = 0.75


def decide_crop(cases: Sequence[Case]) -> tuple[str, str]:
    """`nonzero` where the box of what is not background (air, of CT) leaves out a quarter of most images."""
    kept = [math.prod(case.nonzero_shape or case.shape) / math.prod(case.shape) for case in cases]
    if np.mean([share < _KEPT for share in kept]) >= MOST_CASES:
        return "nonzero", f"the box of what is not background has {np.median(kept):.0%} of an image's voxels (median)"
    return "none", f"the box of what is not background has {np.median(kept):.0%} of an image's voxels (median)"


def pinned_crop_reason(pin: str, open_crop: str, whole: Sequence[Grid], kept: Sequence[Grid]) -> str:
    if pin == open_crop:
        return f"pinned; open it would be {open_crop} as well"
    voxels = {"none": sum(math.prod(g.shape) for g in whole), "nonzero": sum(math.prod(g.shape) for g in kept)}
    return f"pinned; open it would be {open_crop}: {voxels[pin] / voxels[open_crop]:.2g} times the voxels"
