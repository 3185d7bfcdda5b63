"""The patch and the network's strides and kernels: as large as device and memory allow, or around what is pinned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.dataset.loaded_cases import Cases
from pipeline.io.geometry import Shape, Spacing
from pipeline.models.networks.network_config import AnyNetwork, network_config
from pipeline.planning.network_topology import Triple, topology, with_topology
from pipeline.planning.step_timing import StepSpec
from pipeline.planning.training_memory import predict_memory

_SMALLEST_PATCH = 2**13


@dataclass(frozen=True)
class PatchPlan:
    """Patch and network as far as the data decide them."""

    patch_size: Shape
    network: dict[str, Any]
    reasons: dict[str, str]


def decide_patch_plan(
    config: PlanConfig,
    network: AnyNetwork,
    shape: Shape,
    spacing_mm: Spacing,
    cases: Cases,
    out_channels: int,
    device: torch.device,
    limit_gib: float,
    voxels: int,
    largest: Shape,
    accumulate: int = 1,
) -> PatchPlan:
    """The largest patch of up to about `voxels` whose training fits into memory.

    shape: the images' median on the planned grid. largest: the longest of each of their axes.
    """
    while True:
        shaping = _shape_of(network, shape, spacing_mm, voxels)
        if config.patch_size == "whole":
            return _with_its_levels(_whole_patch(largest, network, shaping, spacing_mm))
        if config.patch_size is not None:
            return _with_its_levels(_pinned_patch(config.patch_size, network, shaping, spacing_mm))
        settings, channels = network_config(_with_its_levels(shaping).network).model_dump(), len(cases.channels)
        batch = config.batch_size or 2
        work = StepSpec(settings, channels, out_channels, shaping.patch_size, batch, cases.overlapping, accumulate)
        needed = predict_memory(work, config.precision or "fp32", device).total
        if needed <= limit_gib:
            shaping.reasons["patch_size"] += f"; {needed:.1f} of {limit_gib:.1f} GiB with {batch} of them"
            return shaping
        if voxels <= _SMALLEST_PATCH:
            raise ConfigError(
                f"plan.memory_gib: even a patch of {list(shaping.patch_size)} in batches of {batch} needs "
                f"{needed:.2f} GiB to train, but {limit_gib:.2f} GiB may be used; choose a smaller network or batch, "
                "or free memory"
            )
        voxels //= 2


def _shape_of(network: AnyNetwork, shape: Shape, spacing_mm: Spacing, voxels: int) -> PatchPlan:
    wanted = open_patch(shape, spacing_mm, voxels)
    filled, layout, why = with_topology(network, topology(wanted, spacing_mm))
    patch = rounded_patch(wanted, shape, layout)
    spans = all(size >= n for size, n in zip(patch, shape, strict=True))
    reason = f"holds the median image {list(shape)}" if spans else f"about {voxels} voxels, near to a cube in mm"
    reasons = {"patch_size": f"{reason}, in steps of {list(layout)}", "network": why}
    return PatchPlan(patch, filled, reasons)


def _with_its_levels(shaping: PatchPlan) -> PatchPlan:
    """The same; a ConfigError where more levels should have a loss of their own than the network has for that."""
    levels, wanted = len(shaping.network.get("strides") or ()), shaping.network.get("deep_supervision")
    if levels and wanted is not None and wanted > levels - 2:
        raise ConfigError(
            f"train.network.deep_supervision: {wanted} coarser levels cannot have a loss of their own, since with a "
            f"patch of {list(shaping.patch_size)} the network has {levels} levels: at most {levels - 2}; use that, "
            "leave it open, or give a larger plan.patch_size"
        )
    return shaping


def _pinned_patch(pin: Shape, network: AnyNetwork, open_shaping: PatchPlan, spacing_mm: Spacing) -> PatchPlan:
    """A pinned patch with a network that suits it, and what it costs against the one that planning would choose."""
    filled, layout, why = with_topology(network, topology(pin, spacing_mm))
    if any(size % step for size, step in zip(pin, layout, strict=True)):
        x, y, z = (max(round(size / step), 1) * step for size, step in zip(pin, layout, strict=True))
        raise ConfigError(
            f"plan.patch_size: {list(pin)} is not divisible by {list(layout)}, as this {network.name} needs; "
            f"use {[x, y, z]}, or leave it open"
        )
    return PatchPlan(pin, filled, {"patch_size": f"pinned; {_cost(pin, open_shaping)}", "network": why})


def _whole_patch(largest: Shape, network: AnyNetwork, open_shaping: PatchPlan, spacing_mm: Spacing) -> PatchPlan:
    """A patch that every image fits into."""
    filled, layout, why = with_topology(network, topology(largest, spacing_mm))
    patch = rounded_patch(largest, largest, layout)
    reason = f"whole: the largest image, {list(largest)}, in steps of {list(layout)}; {_cost(patch, open_shaping)}"
    return PatchPlan(patch, filled, {"patch_size": reason, "network": why})


def _cost(patch: Shape, open_shaping: PatchPlan) -> str:
    ratio = math.prod(patch) / math.prod(open_shaping.patch_size)
    return f"open it would be {list(open_shaping.patch_size)}: {ratio:.2g} times the time and memory a patch"


def open_patch(shape: Shape, spacing_mm: Spacing, voxels: int) -> NDArray[np.float64]:
    """A patch of about `voxels`, as near to a cube in mm as the image's median `shape` allows; not yet rounded."""
    limit, spacing = np.array(shape, float), np.array(spacing_mm)
    if limit.prod() <= voxels:
        return limit
    low, high = 0.0, float((limit * spacing).max())
    for _ in range(60):
        edge_mm = (low + high) / 2
        fits = np.minimum(limit, edge_mm / spacing).prod() <= voxels
        low, high = (edge_mm, high) if fits else (low, edge_mm)
    return np.minimum(limit, low / spacing)


def rounded_patch(patch: Sequence[float] | NDArray, shape: Shape, divisor: Triple) -> Shape:
    """The patch in whole steps of `divisor`: up where it spans the image, so that the image fits in, else nearest.

    At least two steps along one axis, since a network cannot normalise a single voxel.
    """
    size = []
    for wanted, n, step in zip(patch, shape, divisor, strict=True):
        steps = math.ceil(wanted / step - 1e-6) if wanted >= n - 1e-6 else round(wanted / step)
        size.append(max(steps, 1) * step)
    if tuple(size) == divisor:
        size[int(np.argmax(np.array(shape) / divisor))] *= 2
    x, y, z = size
    return x, y, z
