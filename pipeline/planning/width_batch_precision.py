"""Width of the network, batch size and precision: as much as memory holds and the training budget can pay for.

With a budget, steps are measured on this machine and as many are planned as fit. What a budget buys is counted in
patches: a batch of two while they are few, since then more steps teach more; a wider network once it gets to see
enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pipeline.planning.network_width import widened
from pipeline.planning.step_timing import Precision, StepSpec
from pipeline.planning.training_budget import TrainingGoal, patches_seen, steps_to_train
from pipeline.planning.training_grids import GridPlan

# A batch larger than this share of all voxels of the data set would see the same again and again (nnU-Net).
_BATCH_SHARE = 0.05
# Patches that a network must get to see before its width pays.
_PATCHES_FOR_WIDTH = {16: 0, 32: 40_000}
# Patches in all from which on a larger batch pays.
_PATCHES_FOR_BATCH = {2: 0, 4: 40_000, 8: 800_000}

Timer = Callable[[StepSpec, Sequence[Precision]], Mapping[Precision, float]]
"""Seconds of a step of some work in each of some precisions."""
Fits = Callable[[StepSpec, Precision], bool]
"""Whether memory holds the training of some work in some precision."""


@dataclass
class TrainingBudget:
    """What was decided, and why. seconds_per_step: of a whole step, with all the batches that it accumulates."""

    network: dict[str, Any]
    batch_size: int
    precision: Precision
    max_steps: int
    seconds_per_step: float | None
    patches: int
    """In all steps."""
    reasons: dict[str, str] = field(default_factory=dict)


def decide_training_budget(
    goal: TrainingGoal,
    goal_reason: str,
    work: StepSpec,
    width_is_open: bool,
    batch_pin: int | None,
    precision_pin: Precision | None,
    device: torch.device,
    timer: Timer,
    largest_batch: int,
    fits: Fits = lambda work, precision: True,  # noqa: ARG005
) -> TrainingBudget:
    """Decides what is open; wider networks and larger batches only where they fit.

    `timer` is only asked where a measurement decides something.
    """
    reasons: dict[str, str] = {}
    narrow = widened(work, 16) if width_is_open else work
    first = replace(narrow, batch_size=batch_pin or 2)
    times = _precisions(first, precision_pin, device, timer, measured=goal.budget_seconds is not None)
    precision = min(times, key=lambda name: times[name] or math.inf)
    reasons["precision"] = _precision_reason(times, precision, precision_pin, device)

    chosen, step_seconds = first, times[precision]
    patches = patches_seen(goal, first, step_seconds, device)
    if width_is_open and goal.budget_seconds is not None:
        chosen, step_seconds, patches = _widest(goal, first, precision, step_seconds, device, timer, fits)
    reasons["network"] = _width_reason(chosen, width_is_open, patches, goal.budget_seconds is not None)

    batch, reasons["batch_size"] = _batch(chosen, precision, patches, largest_batch, fits)
    if batch_pin:
        batch, reasons["batch_size"] = batch_pin, f"pinned; open it would be {batch}"
    if batch != chosen.batch_size:
        chosen = replace(chosen, batch_size=batch)
        step_seconds = timer(chosen, [precision])[precision] if goal.budget_seconds is not None else None

    steps, reasons["max_steps"] = steps_to_train(goal, goal_reason, chosen, step_seconds, device)
    whole_step = None if step_seconds is None else goal.accumulate * step_seconds
    seen = steps * goal.accumulate * batch
    return TrainingBudget(dict(chosen.network), batch, precision, steps, whole_step, seen, reasons)


def _precisions(
    work: StepSpec, pin: Precision | None, device: torch.device, timer: Timer, measured: bool
) -> dict[Precision, float | None]:
    """The precisions that may be chosen, with the seconds of a step where they had to be measured."""
    if pin is not None:
        return {**timer(work, [pin])} if measured else {pin: None}
    if device.type == "cuda":
        only: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return {**timer(work, [only])} if measured else {only: None}
    return {**timer(work, ["fp32", "bf16"])}


def _precision_reason(
    times: Mapping[Precision, float | None], chosen: Precision, pin: Precision | None, device: torch.device
) -> str:
    if pin:
        return "pinned"
    if device.type == "cuda":
        return "this GPU has bf16" if chosen == "bf16" else "this GPU has no bf16"
    slower: Precision = "fp32" if chosen == "bf16" else "bf16"
    ratio = (times[slower] or 0) / (times[chosen] or 1)
    return f"measured on this machine: {ratio:.2g} times as fast as {slower}"


def _widest(
    goal: TrainingGoal,
    narrow: StepSpec,
    precision: Precision,
    narrow_seconds: float | None,
    device: torch.device,
    timer: Timer,
    fits: Fits,
) -> tuple[StepSpec, float | None, float]:
    """The widest network that memory holds and the budget can show enough patches to."""
    best = narrow, narrow_seconds, patches_seen(goal, narrow, narrow_seconds, device)
    for width, needed in sorted(_PATCHES_FOR_WIDTH.items())[1:]:
        if best[2] < needed:  # the wider one is slower still: no need to measure it
            break
        wide = widened(narrow, width)
        if not fits(wide, precision):
            break
        wide_seconds = timer(wide, [precision])[precision]
        patches = patches_seen(goal, wide, wide_seconds, device)
        if patches < needed:
            break
        best = wide, wide_seconds, patches
    return best


def _batch(work: StepSpec, precision: Precision, patches: float, largest: int, fits: Fits) -> tuple[int, str]:
    """The largest batch that pays, is no large part of the data set and fits into memory; and why."""
    paying = [size for size, needed in sorted(_PATCHES_FOR_BATCH.items(), reverse=True) if patches >= needed]
    if paying[0] > largest:
        paying = [largest, *(size for size in paying if size < largest)]
    batch = next((size for size in paying[:-1] if fits(replace(work, batch_size=size), precision)), paying[-1])
    if batch < paying[0]:
        return batch, f"memory holds no batch of {paying[0]}"
    if batch == largest:
        return batch, f"{largest} is 5 % of the data set's voxels"
    return batch, f"with about {patches:.0f} patches in all, more steps teach more than larger batches"


def _width_reason(work: StepSpec, was_open: bool, patches: float, measured: bool) -> str:
    if not was_open:
        return "width as given, or of fixed width"
    if not measured:
        return "of the usual width: wider ones are tried only where a budget says how long steps may take"
    width = work.network["channels"][0] if work.network["name"] == "unet" else work.network["init_filters"]
    wider = [w for w in _PATCHES_FOR_WIDTH if w > width]
    beyond = f"; {wider[0]} would want {_PATCHES_FOR_WIDTH[wider[0]]} to pay" if wider else ""
    return f"{width} channels wide: about {patches:.0f} patches can be seen{beyond}"


def batch_size_limit(space: GridPlan, work: StepSpec) -> int:
    voxels = len(space.grids) * math.prod(space.median_shape)
    return max(int(_BATCH_SHARE * voxels / math.prod(work.patch_size)), 2)
