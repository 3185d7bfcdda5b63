"""What voxels mean: normalisation, crop, class weights, and what mirroring would do to left and right."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.data.cases import Case, Cases, Channel
from pipeline.data.geometry import Spacing, resampled_grid
from pipeline.data.plan import ChannelPlan
from pipeline.planning.grid import canonical_grids
from pipeline.planning.settings import Scheme

# What holds for this share of the cases decides for all.
_MOST_CASES = 0.75
# A box with less than this share of an image is worth a crop, as in nnU-Net.
_KEPT = 0.75


def plan_channels(
    channels: Sequence[Channel], cases: Sequence[Case], pins: Mapping[str, Scheme]
) -> tuple[tuple[ChannelPlan, ...], str]:
    """How each channel is normalised, and why. ConfigError where a pin names no channel."""
    names = [channel.name for channel in channels]
    for name in pins:
        if name not in names:
            raise ConfigError(f"plan.normalisation names the channel {name!r}; {did_you_mean(name, names)}")
    plans, reasons = [], []
    for i, channel in enumerate(channels):
        pinned = pins.get(channel.name)
        usual: Scheme = "ct" if channel.modality.upper() == "CT" else "zscore"
        scheme = pinned or usual
        plan = ChannelPlan(name=channel.name, modality=channel.modality, scheme=scheme)
        at_cost = f"pinned; open it would be {usual}"
        because = at_cost if pinned else f"{channel.modality} has no fixed scale: each image by its own"
        if scheme == "ct":
            plan = _percentiles(plan, i, cases)
            because = f"{at_cost}, " if pinned else "CT has a fixed scale: "
            because += f"percentiles of the structures in {len(cases)} cases"
        elif scheme == "zscore" and _is_mostly_zero(i, cases):
            plan = plan.model_copy(update={"nonzero": True})
            because += ", over voxels that are not 0, since most are"
        plans.append(plan)
        reasons.append(f"{channel.name}: {because}")
    return tuple(plans), "; ".join(reasons)


def _percentiles(plan: ChannelPlan, index: int, cases: Sequence[Case]) -> ChannelPlan:
    """Means over cases of the foreground's percentiles; mean and deviation as of all its voxels together."""
    rows = [case.intensity[index] for case in cases if index < len(case.intensity)]
    part = "foreground_" if any("foreground_p005" in row for row in rows) else ""
    rows = [row for row in rows if f"{part}p005" in row]
    if not rows:
        raise ConfigError(
            f"plan.normalisation: channel {plan.name} cannot be normalised as CT without intensity statistics; "
            "use zscore or none"
        )
    mean = np.array([row[f"{part}mean"] for row in rows])
    variance = np.array([row[f"{part}std"] for row in rows]) ** 2
    return plan.model_copy(
        update={
            "lower": round(float(np.mean([row[f"{part}p005"] for row in rows])), 4),
            "upper": round(float(np.mean([row[f"{part}p995"] for row in rows])), 4),
            "mean": round(float(mean.mean()), 4),
            "std": round(float(np.sqrt(variance.mean() + mean.var())), 4),
        }
    )


def decide_crop(cases: Sequence[Case]) -> tuple[str, str]:
    """`nonzero` where the box of what is not background (air, of CT) leaves out a quarter of most images."""
    kept = [math.prod(case.nonzero_shape or case.shape) / math.prod(case.shape) for case in cases]
    if np.mean([share < _KEPT for share in kept]) >= _MOST_CASES:
        return "nonzero", f"the box of what is not background has {np.median(kept):.0%} of an image's voxels (median)"
    return "none", f"the box of what is not background has {np.median(kept):.0%} of an image's voxels (median)"


def _half_is_background(case: Case, channel: int) -> bool:
    row = case.intensity[channel] if channel < len(case.intensity) else {}
    return "p50" in row and "min" in row and row["p50"] <= row["min"] + 1e-3 * (row["max"] - row["min"])


def _is_mostly_zero(channel: int, cases: Sequence[Case]) -> bool:
    zero = [_half_is_background(case, channel) and case.intensity[channel]["min"] == 0 for case in cases]
    return float(np.mean(zero)) >= _MOST_CASES


def inverse_frequency(cases: Cases, crop: str, spacing_mm: Spacing) -> tuple[float, ...]:
    """One weight per output channel, background first (none where structures overlap): 1 / volume, with mean 1.

    Volumes are counted in voxels of the planned grid, which is what a loss sees: background is what the crop keeps of
    it, and ignored voxels are none.
    """
    training = cases.training()
    grids = canonical_grids(training, crop)
    planned = [math.prod(resampled_grid(grid, spacing_mm).shape) for grid in grids]
    per_voxel = [after / math.prod(grid.shape) for after, grid in zip(planned, grids, strict=True)]
    voxels = [
        sum(times * case.label_voxels.get(name, 0) for times, case in zip(per_voxel, training, strict=True))
        for name in cases.structures
    ]
    if not cases.overlapping:
        ignored = sum(times * case.ignored_voxels for times, case in zip(per_voxel, training, strict=True))
        voxels.insert(0, max(sum(planned) - ignored - sum(voxels), 1))
    weights = 1 / np.maximum(np.array(voxels, float), 1)
    return tuple(float(f"{weight:.5g}") for weight in weights / weights.mean())


_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_SIDE = re.compile(r"(left|right|links|rechts|gauche|droite?|lt|rt|lh|rh)\d*|l|r", re.I)
_CHAMBER = re.compile(r"[LR][VA](myo|cavity|blood|wall|epi|endo|pool|lumen)", re.I)  # of the heart: LVmyo
_NO_NAME = re.compile(r"label_\d+")


def sided_structures(structures: Sequence[str]) -> list[str]:
    """Structures whose name says on which side they lie: LeftParotid, kidney_right, femur-l, ctx-lh-cuneus."""
    return [
        name
        for name in structures
        if not _CHAMBER.match(name) and any(_SIDE.fullmatch(word) for word in _WORDS.split(name))
    ]


def decide_mirroring(structures: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], str]:
    """Left–right, unless structures have sides: other flips do not occur in scans whose axes are anatomical.

    ConfigError where a pair names no structure.
    """
    for name in {name for pair in pairs for name in pair}:
        if name not in structures:
            raise ConfigError(f"plan.left_right_pairs names {name!r}; {did_you_mean(name, list(structures))}")
    if pairs:
        return (), "flipped left–right only with the structures' names exchanged (plan.left_right_pairs)"
    if sided := sided_structures(structures):
        return (), f"none: {', '.join(sided)} would be taken for their other side (unless plan.left_right_pairs)"
    if unnamed := [name for name in structures if _NO_NAME.fullmatch(name)]:
        return (), f"none: {', '.join(unnamed)} have no names that say whether they have sides (plan.mirror_axes: [0])"
    return (0,), "left–right: no structure has a side; axes are anatomical, so that other flips do not occur"
