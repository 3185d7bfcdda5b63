"""What voxels mean: normalisation, crop, class weights, and what mirroring would do to left and right."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.config.plan import Scheme
from pipeline.dataset.case_index import Case, Cases, Channel
from pipeline.io.geometry import Spacing, resampled_grid
from pipeline.planning.network_topology import canonical_grids
from pipeline.preprocessing.plan import ChannelPlan

# What holds for this share of the cases decides for all.
_MOST_CASES = 0.75
# A box with less than this share of an image is worth a crop.
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


def _is_mostly_zero(channel: int, cases: Sequence[Case]) -> bool:
    """Whether 0 is the smallest value of most images and at least half of their voxels have it.

    Small values count for nothing: those of a PET are, beside its hottest voxel, and are no background.
    """
    rows = [case.intensity[channel] if channel < len(case.intensity) else {} for case in cases]
    return float(np.mean([row.get("p50") == row.get("min") == 0 for row in rows])) >= _MOST_CASES


def inverse_frequency(cases: Cases, crop: str, spacing_mm: Spacing) -> tuple[float, ...]:
    """One weight per output channel, background first (none where structures overlap): 1 / volume, with mean 1.

    Volumes are counted in voxels of the planned grid, which is what a loss sees: background is what the crop keeps of
    it, and ignored voxels are none. What no case holds weighs as much as the smallest class that there is: by its own
    volume it would take all weight away from the others.
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
    counted = np.array(voxels, float)
    present = counted > 1
    weights = 1 / np.where(present, counted, counted[present].min() if present.any() else 1)
    return tuple(float(f"{weight:.5g}") for weight in weights / weights.mean())


def absent_structures(cases: Cases) -> list[str]:
    """Structures that no training case holds."""
    return [name for name in cases.structures if not any(case.label_voxels.get(name) for case in cases.training())]


_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_SIDE = re.compile(r"(left|right|links|rechts|gauche|droite?|lt|rt|lh|rh)\d*|l|r", re.I)
# Of the heart, whose left and right are no mirror images: LVmyo, and LV or RA as a word.
_CHAMBER = re.compile(r"[LR][VA](myo|cavity|blood|wall|epi|endo|pool|lumen)", re.I)
_CHAMBER_WORD = re.compile(r"[LR][VA]", re.I)
_NO_NAME = re.compile(r"label_\d+")
# How languages write a left and a right, also within a word.
_EXCHANGED = (
    ("left", "right"), ("l", "r"),
    ("links", "rechts"), ("linke", "rechte"), ("li", "re"),
    ("gauche", "droite"), ("gauche", "droit"),
    ("sx", "dx"), ("sin", "dx"), ("sin", "dex"), ("sin", "des"), ("sinistr", "destr"), ("sinister", "dexter"),
    ("izq", "der"), ("izquierd", "derech"), ("izd", "dch"), ("esq", "dir"), ("esquerd", "direit"),
    ("左", "右"),
)  # fmt: skip


def sided_structures(structures: Sequence[str]) -> list[str]:
    """Structures whose name says on which side they lie: LeftParotid, kidney_right, femur-l; and those of pairs."""
    paired = {name for pair in sided_pairs(structures) for name in pair}
    return [name for name in structures if name in paired or _says_a_side(name)]


def sided_pairs(structures: Sequence[str]) -> list[tuple[str, str]]:
    """Two names that are one but for a side, however it is written: lkid and rkid, rene_sx and rene_dx."""
    by_name = {name.lower(): name for name in structures if not _is_chamber(name)}
    found = ((name, by_name[other]) for low, name in by_name.items() for other in _exchanged(low) if other in by_name)
    return list(dict.fromkeys(found))


def _is_chamber(name: str) -> bool:
    return bool(_CHAMBER.match(name)) or any(_CHAMBER_WORD.fullmatch(word) for word in _WORDS.split(name))


def _says_a_side(name: str) -> bool:
    """Whether a whole word of the name is a side."""
    return not _CHAMBER.match(name) and any(_SIDE.fullmatch(word) for word in _WORDS.split(name))


def _exchanged(name: str) -> Iterator[str]:
    """A name with one of its lefts turned into a right."""
    for left, right in _EXCHANGED:
        for place in re.finditer(left, name):
            yield name[: place.start()] + right + name[place.end() :]


def decide_mirroring(structures: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], str]:
    """Left–right, unless structures have sides: other flips do not occur in scans whose axes are anatomical.

    ConfigError where a pair names no structure, or a structure that has a side is in no pair although there are some.
    """
    named = list(dict.fromkeys(name for pair in pairs for name in pair))
    for name in named:
        if name not in structures:
            raise ConfigError(f"plan.left_right_pairs names {name!r}; {did_you_mean(name, list(structures))}")
    sided = sided_structures(structures)
    if pairs:
        _require_all_in_pairs(sided, named)
        return (), "flipped left–right only with the structures' names exchanged (plan.left_right_pairs)"
    if sided:
        taken = [f"{left} and {right}" for left, right in sided_pairs(structures) if not _says_a_side(left)]
        why = f"; taken for a left and a right: {', '.join(taken)}" if taken else ""
        return (), f"none: {', '.join(sided)} would be taken for their other side (unless plan.left_right_pairs){why}"
    if unnamed := [name for name in structures if _NO_NAME.fullmatch(name)]:
        return (), f"none: {', '.join(unnamed)} have no names that say whether they have sides (plan.mirror_axes: [0])"
    return (0,), "left–right: no structure has a side; axes are anatomical, so that other flips do not occur"


def _require_all_in_pairs(sided: Sequence[str], named: Sequence[str]) -> None:
    """With pairs, images are flipped left–right: whatever has a side must then change its name."""
    if left_out := [name for name in sided if name not in named]:
        raise ConfigError(
            f"plan.left_right_pairs leaves out {', '.join(left_out)}: where it names pairs, images are flipped "
            "left–right, so that these would be learned on their other side; name the pairs of all structures that "
            "have a side, or none at all"
        )
