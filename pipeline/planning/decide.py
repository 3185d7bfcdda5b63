"""The plan: pins first, then the data, then what machine and time allow; every value with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.base.errors import ConfigError
from pipeline.base.runtime import available_memory_gib, usable_cores
from pipeline.data.cases import Cases
from pipeline.data.geometry import Shape, Spacing
from pipeline.data.labels import index_type
from pipeline.data.plan import Plan
from pipeline.data.store import case_bytes
from pipeline.models.network_config import AnyNetwork, UNetConfig, network_config, size_divisor
from pipeline.planning.effort import Goal, Timer, decide_effort, has_width
from pipeline.planning.grid import (
    Topology,
    canonical_grids,
    median_shape,
    open_patch,
    rounded_patch,
    target_spacing,
    topology,
)
from pipeline.planning.measure import Work, seconds_per_step
from pipeline.planning.memory import predict_memory
from pipeline.planning.settings import PlanConfig
from pipeline.planning.values import decide_crop, decide_mirroring, inverse_frequency, plan_channels

# Voxels of a patch where nothing else limits it: what a CPU does in a tenth of a second, what a GPU does well.
_PATCH_VOXELS = {"cpu": 2**17, "cuda": 2**21}
_SMALLEST_PATCH = 2**13
# A batch larger than this share of all voxels of the data set would see the same again and again (nnU-Net).
_BATCH_SHARE = 0.05
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Shaping:
    """Patch and network as far as the data decide them."""

    patch_size: Shape
    network: dict[str, Any]
    reasons: dict[str, str]


def make_plan(
    config: PlanConfig,
    network: AnyNetwork,
    cases: Cases,
    device: torch.device,
    budget: str | None = None,
    max_steps: int | None = None,
    max_epochs: int | None = None,
    accumulate: int = 1,
    timer: Timer | None = None,
) -> Plan:
    """Decides everything that `config` and `network` leave open.

    accumulate: planned batches per step. timer: seconds of a step of one batch; None measures them on `device`. Raises
    a ConfigError where pins contradict one another or the data, or memory holds not even the smallest patch.
    """
    training = cases.training()
    grids, reasons = canonical_grids(training), {}
    spacing_mm, reasons["spacing_mm"] = target_spacing(grids)
    if config.spacing_mm is not None:
        reasons["spacing_mm"] = _pinned_spacing(config.spacing_mm, spacing_mm)
        spacing_mm = config.spacing_mm
    crop, reasons["crop"] = decide_crop(cases.channels, training)
    if config.crop is not None:
        crop, reasons["crop"] = config.crop, f"pinned; open it would be {crop}"
    grids = canonical_grids(training, crop)
    channels, reasons["channels"] = plan_channels(cases.channels, training, config.normalisation)
    mirror_axes, reasons["mirror_axes"] = decide_mirroring(list(cases.structures), config.left_right_pairs)
    if config.mirror_axes is not None:
        mirror_axes, reasons["mirror_axes"] = config.mirror_axes, f"pinned; open it would be {list(mirror_axes)}"

    shape = median_shape(grids, spacing_mm)
    out_channels = len(cases.structures) + (0 if cases.overlapping else 1)
    limit_gib = config.memory_gib or _MEMORY_SHARE * _free_gib(device)
    threads = (config.num_threads or usable_cores()) if device.type == "cpu" else None
    shaping = _shape(config, network, shape, spacing_mm, cases, out_channels, device, limit_gib)
    reasons |= shaping.reasons

    dataset_voxels = len(grids) * math.prod(shape)
    patch_voxels = math.prod(shaping.patch_size)
    goal, goal_reason = Goal.of(budget, max_steps, max_epochs, len(training), accumulate)
    effort = decide_effort(
        goal,
        goal_reason,
        Work(shaping.network, len(cases.channels), out_channels, shaping.patch_size, 2, cases.overlapping),
        has_width(shaping.network),
        config.batch_size,
        config.precision,
        device,
        timer or (lambda work, precisions: seconds_per_step(work, precisions, device, threads)),
        largest_batch=max(int(_BATCH_SHARE * dataset_voxels / patch_voxels), 2),
    )
    reasons |= {**effort.reasons, "network": f"{reasons['network']}; {effort.reasons['network']}"}
    work = Work(
        effort.network, len(cases.channels), out_channels, shaping.patch_size, effort.batch_size, cases.overlapping
    )
    label_type = index_type(cases.structures, cases.overlapping)
    store = sum(
        case_bytes(_planned(grid.shape, grid.spacing_mm, spacing_mm), len(channels), label_type) for grid in grids
    )
    predicted = {
        "train_memory_gib": predict_memory(work, effort.precision, device).total,
        "store_gib": store / 2**30,
    }
    if effort.seconds_per_step is not None:
        predicted["seconds_per_step"] = effort.seconds_per_step
        predicted["training_minutes"] = effort.seconds_per_step * effort.max_steps / 60
    return Plan(
        spacing_mm=spacing_mm,
        crop=crop,
        image_interpolation=config.image_interpolation or "linear",
        label_interpolation=config.label_interpolation or "linear",
        channels=channels,
        resample_channels=cases.resample_channels,
        structures=cases.structures,
        ignore_value=cases.ignore_value,
        overlapping=cases.overlapping,
        patch_size=shaping.patch_size,
        batch_size=effort.batch_size,
        network=network_config(effort.network).model_dump(mode="json"),
        max_steps=effort.max_steps,
        precision=effort.precision,
        device=device.type,
        num_threads=threads,
        mirror_axes=mirror_axes,
        mirror_swaps=config.left_right_pairs,
        class_weights=inverse_frequency(cases),
        predicted={key: float(f"{value:.4g}") for key, value in predicted.items()},
        reasons=reasons,
    )


def _shape(
    config: PlanConfig,
    network: AnyNetwork,
    shape: Shape,
    spacing_mm: Spacing,
    cases: Cases,
    out_channels: int,
    device: torch.device,
    limit_gib: float,
) -> Shaping:
    """The largest patch, up to what the device does well, whose training fits into memory."""
    voxels = _PATCH_VOXELS[device.type]
    while True:
        shaping = _shape_of(network, shape, spacing_mm, voxels)
        if config.patch_size is not None:
            return _pinned_patch(config.patch_size, network, shaping, spacing_mm)
        work = Work(
            network_config(shaping.network).model_dump(), len(cases.channels), out_channels, shaping.patch_size, 2
        )
        needed = predict_memory(work, config.precision or "fp32", device).total
        if needed <= limit_gib:
            shaping.reasons["patch_size"] += f"; {needed:.1f} of {limit_gib:.1f} GiB with two of them"
            return shaping
        if voxels <= _SMALLEST_PATCH:
            raise ConfigError(
                f"plan.memory_gib: even a patch of {list(shaping.patch_size)} needs {needed:.2f} GiB to train, but "
                f"{limit_gib:.2f} GiB may be used; choose a smaller network, or free memory"
            )
        voxels //= 2


def _shape_of(network: AnyNetwork, shape: Shape, spacing_mm: Spacing, voxels: int) -> Shaping:
    wanted = open_patch(shape, spacing_mm, voxels)
    filled, layout, why = _filled(network, topology(wanted, spacing_mm))
    patch = rounded_patch(wanted, shape, layout)
    spans = all(size >= n for size, n in zip(patch, shape, strict=True))
    reason = f"holds the median image {list(shape)}" if spans else f"about {voxels} voxels, near to a cube in mm"
    reasons = {"patch_size": f"{reason}, in steps of {list(layout)}", "network": why}
    return Shaping(patch, filled, reasons)


def _filled(network: AnyNetwork, found: Topology) -> tuple[dict[str, Any], Shape, str]:
    """The network's settings with strides and kernels, its divisor, and a sentence."""
    if not isinstance(network, UNetConfig):
        return network.model_dump(mode="json"), size_divisor(network), f"{network.name} has its own depth"
    levels = len(network.channels or network.strides or network.kernel_size or found.strides)
    if network.strides is None and levels != len(found.strides):
        found = _with_levels(found, levels)
    strides = network.strides or found.strides
    kernels = network.kernel_size or (found.kernel_size if len(found.kernel_size) == len(strides) else None)
    settings = network.model_copy(update={"strides": strides, "kernel_size": kernels})
    said = "strides as given" if network.strides else "each axis halved while 4 voxels remain, thick slices later"
    return settings.model_dump(mode="json"), size_divisor(settings), f"{levels} levels, {said}"


def _with_levels(found: Topology, levels: int) -> Topology:
    """A topology cut, or continued without halving, to a given number of levels."""
    more = levels - len(found.strides)
    return Topology(
        found.strides[:levels] + ((1, 1, 1),) * more, found.kernel_size[:levels] + found.kernel_size[-1:] * more
    )


def _pinned_patch(pin: Shape, network: AnyNetwork, open_shaping: Shaping, spacing_mm: Spacing) -> Shaping:
    """A pinned patch with a network that suits it, and what it costs against the one that planning would choose."""
    filled, layout, why = _filled(network, topology(pin, spacing_mm))
    if any(size % step for size, step in zip(pin, layout, strict=True)):
        x, y, z = (max(round(size / step), 1) * step for size, step in zip(pin, layout, strict=True))
        raise ConfigError(
            f"plan.patch_size: {list(pin)} is not divisible by {list(layout)}, as this {network.name} needs; "
            f"use {[x, y, z]}, or leave it open"
        )
    ratio = math.prod(pin) / math.prod(open_shaping.patch_size)
    cost = f"pinned; open it would be {list(open_shaping.patch_size)}: {ratio:.2g} times the time and memory a patch"
    return Shaping(pin, filled, {"patch_size": cost, "network": why})


def _pinned_spacing(pin: Spacing, open_mm: Spacing) -> str:
    ratio = float(np.prod(open_mm) / np.prod(pin))
    shown = ", ".join(f"{value:.4g}" for value in open_mm)
    return f"pinned; open it would be [{shown}]: {ratio:.2g} times the voxels, in the store and at inference"


def _planned(shape: Shape, old_mm: Spacing, new_mm: Spacing) -> Shape:
    x, y, z = (max(round(n * old / new), 1) for n, old, new in zip(shape, old_mm, new_mm, strict=True))
    return x, y, z


def _free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    return available_memory_gib()


def shown(plan: Plan) -> list[tuple[str, str, str]]:
    """The plan as rows for a person: key, value, reason."""
    values: Mapping[str, Any] = plan.model_dump(mode="json")
    settings = (f"{key}={_short(value)}" for key, value in plan.network.items() if value not in (None, 0, 0.0, False))
    network = " ".join(settings).removeprefix("name=")
    special = {
        "network": network,
        "channels": ", ".join(f"{channel.name} {channel.scheme}" for channel in plan.channels),
    }
    keys = ("spacing_mm", "crop", "channels", "patch_size", "batch_size", "network", "precision", "max_steps")
    rows = [(key, special.get(key, str(values[key])), plan.reasons.get(key, "")) for key in (*keys, "mirror_axes")]
    return [*rows, *((key, f"{value:.3g}", "predicted") for key, value in plan.predicted.items())]


def _short(value: Any) -> str:
    """Levels as 16-32-64, per axis as 111-222."""
    if isinstance(value, (list, tuple)):
        return "-".join("".join(map(str, each)) if isinstance(each, (list, tuple)) else str(each) for each in value)
    return str(value)
