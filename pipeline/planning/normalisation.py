"""Normalisation of each channel: CT by percentiles of the data set, others image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.config.plan import Scheme
from pipeline.dataset.loaded_cases import Case, Channel
from pipeline.preprocessing.plan import ChannelPlan

# What holds for this share of the cases decides for all.
MOST_CASES = 0.75


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


def _is_mostly_zero(channel: int, cases: Sequence[Case]) -> bool:
    """Whether 0 is the smallest value of most images and at least half of their voxels have it.

    Small values count for nothing: those of a PET are, beside its hottest voxel, and are no background.
    """
    rows = [case.intensity[channel] if channel < len(case.intensity) else {} for case in cases]
    return float(np.mean([row.get("p50") == row.get("min") == 0 for row in rows])) >= MOST_CASES
