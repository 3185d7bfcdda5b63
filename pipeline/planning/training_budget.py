"""How the time is spent: width, batch, precision and number of steps.

With a budget, steps are measured on this machine and as many are planned as fit. What a budget buys is counted in
patches: a batch of two while they are few, since then more steps teach more; a wider network once it gets to see
enough of them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pipeline.base.errors import ConfigError
from pipeline.planning.step_timing import Precision, StepSpec
from pipeline.planning.validation_cost import ValidationCost

log = logging.getLogger(__name__)

# Of a budget, from which on what is not training is remarked on.
_MUCH = 0.5
# The rest is for start-up and saving; with validation's usual 5 % of the steps' time, 92 % are for the steps.
STEPS_AND_VALIDATION = 0.966
DEFAULT_BUDGET = "30m"
# Before the first compiled step, on a CPU: 20 on one machine, 34 on another (the train step's record). On a GPU it was
# never measured.
COMPILE_SECONDS = 34.0
# Drawing and augmenting run beside the network, and take cores from it on a CPU. On a GPU they share its queue with the
# network's work; how much that costs is not measured, so that this is an allowance.
_BESIDE = {"cpu": 1.05, "cuda": 1.05}
# Patches that a network must get to see before its width pays.
_PATCHES_FOR_WIDTH = {16: 0, 32: 40_000}
# Patches in all from which on a larger batch pays.
_PATCHES_FOR_BATCH = {2: 0, 4: 40_000, 8: 800_000}
_WIDTH_KEY = {"unet": "channels", "segresnet": "init_filters"}
_WIDEST = 320

Timer = Callable[[StepSpec, Sequence[Precision]], Mapping[Precision, float]]
"""Seconds of a step of some work in each of some precisions."""
Fits = Callable[[StepSpec, Precision], bool]
"""Whether memory holds the training of some work in some precision."""


@dataclass(frozen=True)
class TrainingGoal:
    """How long to train: exactly one of the first three decides. accumulate: planned batches per step.

    validating: what of a budget goes to validation. compiled: the network is compiled within the budget.
    """

    budget_seconds: float | None = None
    max_steps: int | None = None
    patches: int | None = None
    accumulate: int = 1
    validating: ValidationCost = field(default_factory=ValidationCost)
    compiled: bool = False

    @classmethod
    def of(
        cls,
        budget: str | None,
        max_steps: int | None,
        max_epochs: int | None,
        cases: int,
        accumulate: int = 1,
    ) -> tuple[TrainingGoal, str]:
        """The goal that the configuration sets, and how it was set; `max_steps` goes before the others."""
        unused = f", so that the budget of {budget} is not looked at" if budget else ""
        if max_steps is not None:
            return cls(max_steps=max_steps, accumulate=accumulate), f"given (train.max_steps){unused}"
        if max_epochs is not None:
            said = f"{max_epochs} epochs (train.max_epochs) of {cases} patches{unused}"
            return cls(patches=max_epochs * cases, accumulate=accumulate), said
        text = budget or DEFAULT_BUDGET
        said = f"{text} a fold" if budget else f"{text} a fold, since no train.budget is given"
        return cls(budget_seconds=seconds(text), accumulate=accumulate), said

    def batches_in_budget(self, work: StepSpec, step_seconds: float | None, device: torch.device) -> tuple[float, str]:
        """How many batches of `work` the budget holds if one takes `step_seconds`, and where the rest of it goes."""
        if self.budget_seconds is None or step_seconds is None:
            raise AssertionError("a budget needs a measured step")
        validation = self.validating.share_of_steps(work.patch_size, self.accumulate * work.batch_size)
        compiling = COMPILE_SECONDS if self.compiled else 0.0
        for_steps = max(self.budget_seconds - compiling, 0.0) * STEPS_AND_VALIDATION / (1 + validation)
        purposes = "validation, compiling, start-up and saving" if self.compiled else "validation, start-up and saving"
        left = 1 - for_steps / self.budget_seconds
        if left > _MUCH:
            log.warning(
                "train.budget: %.0f%% of it go into %s, and little is left to learn in; give more time, leave out "
                "train.compile, or open train.validation.interval and cases",
                100 * left,
                purposes,
            )
        return for_steps / (step_seconds * _BESIDE[device.type]), f"{left:.0%} left for {purposes}"


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


def seconds(text: str) -> float:
    """30m as 1800; s, m, h and d are known."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if not found or float(found[1]) == 0:
        raise ConfigError(f"train.budget: {text!r} is no time; write for instance 90s, 30m, 2h or 1d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


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
    patches = _patches(goal, first, step_seconds, device)
    if width_is_open and goal.budget_seconds is not None:
        chosen, step_seconds, patches = _widest(goal, first, precision, step_seconds, device, timer, fits)
    reasons["network"] = _width_reason(chosen, width_is_open, patches, goal.budget_seconds is not None)

    batch, reasons["batch_size"] = _batch(chosen, precision, patches, largest_batch, fits)
    if batch_pin:
        batch, reasons["batch_size"] = batch_pin, f"pinned; open it would be {batch}"
    if batch != chosen.batch_size:
        chosen = replace(chosen, batch_size=batch)
        step_seconds = timer(chosen, [precision])[precision] if goal.budget_seconds is not None else None

    steps, reasons["max_steps"] = _steps(goal, goal_reason, chosen, step_seconds, device)
    whole_step = None if step_seconds is None else goal.accumulate * step_seconds
    seen = steps * goal.accumulate * batch
    return TrainingBudget(dict(chosen.network), batch, precision, steps, whole_step, seen, reasons)


def widened(work: StepSpec, width: int) -> StepSpec:
    """The same work with a network of `width` channels at the finest level."""
    network = dict(work.network)
    if network["name"] == "unet":
        network["channels"] = [min(width * 2**level, _WIDEST) for level in range(len(network["strides"]))]
    elif network["name"] == "segresnet":
        network["init_filters"] = width
    return replace(work, network=network)


def has_width(network: Mapping[str, Any]) -> bool:
    """Whether planning may choose the network's width: it has one, and the configuration leaves it open."""
    key = _WIDTH_KEY.get(network["name"])
    return key is not None and network.get(key) is None


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
    best = narrow, narrow_seconds, _patches(goal, narrow, narrow_seconds, device)
    for width, needed in sorted(_PATCHES_FOR_WIDTH.items())[1:]:
        if best[2] < needed:  # the wider one is slower still: no need to measure it
            break
        wide = widened(narrow, width)
        if not fits(wide, precision):
            break
        wide_seconds = timer(wide, [precision])[precision]
        patches = _patches(goal, wide, wide_seconds, device)
        if patches < needed:
            break
        best = wide, wide_seconds, patches
    return best


def _patches(goal: TrainingGoal, work: StepSpec, step_seconds: float | None, device: torch.device) -> float:
    """How many patches training will see."""
    if goal.patches is not None:
        return goal.patches
    if goal.max_steps is not None:
        return goal.max_steps * goal.accumulate * work.batch_size
    return goal.batches_in_budget(work, step_seconds, device)[0] * work.batch_size


def _steps(
    goal: TrainingGoal, goal_reason: str, work: StepSpec, step_seconds: float | None, device: torch.device
) -> tuple[int, str]:
    if goal.max_steps is not None:
        return goal.max_steps, goal_reason
    if goal.patches is not None:
        return max(math.ceil(goal.patches / (goal.accumulate * work.batch_size)), 1), goal_reason
    batches_held, rest = goal.batches_in_budget(work, step_seconds, device)
    each = goal.accumulate * (step_seconds or 0.0) * _BESIDE[device.type]
    batches = f" of {goal.accumulate} batches" if goal.accumulate > 1 else ""
    said = f"{each:.3g} s a step{batches} with {work.loss.name} and {work.optimizer} as measured here, {rest}"
    return max(int(batches_held / goal.accumulate), 1), f"{goal_reason}: {said}"


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
