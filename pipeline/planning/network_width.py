"""Width of a network: its features per level from a number at the finest level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.planning.step_timing import StepSpec

_WIDTH_KEY = {"unet": "channels", "segresnet": "init_filters"}

WIDEST = 320


def widened(work: StepSpec, width: int) -> StepSpec:
    """The same work with a network of `width` channels at the finest level."""
    network = dict(work.network)
    if network["name"] == "unet":
        network["channels"] = [min(width * 2**level, WIDEST) for level in range(len(network["strides"]))]
    elif network["name"] == "segresnet":
        network["init_filters"] = width
    return replace(work, network=network)


def has_width(network: Mapping[str, Any]) -> bool:
    """Whether planning may choose the network's width: it has one, and the configuration leaves it open."""
    key = _WIDTH_KEY.get(network["name"])
    return key is not None and network.get(key) is None
