"""The plan: pins first, then the data, then what machine and time allow; every value with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.base.errors import ConfigError
from pipeline.base.machine import available_memory_gib, usable_cores
from pipeline.config.plan import PlanConfig, StepCost
from pipeline.dataset.case_index import Cases
from pipeline.dataset.label_encoding import ignore_index, index_type
from pipeline.models.networks.network_config import AnyNetwork, network_config
from pipeline.planning.class_weights import absent_structures, inverse_frequency
from pipeline.planning.patch_size import PatchPlan, decide_patch_plan
from pipeline.planning.preprocessing_plan import GridPlan, decide_grid
from pipeline.planning.step_timing import Precision, StepSpec, seconds_per_step
from pipeline.planning.training_budget import Timer, TrainingBudget, TrainingGoal, decide_training_budget, has_width
from pipeline.planning.training_memory import predict_memory
from pipeline.planning.validation_cost import ValidationCost
from pipeline.preprocessing.plan import Plan
from pipeline.sampling.patch_store import case_bytes

# A batch larger than this share of all voxels of the data set would see the same again and again (nnU-Net).
_BATCH_SHARE = 0.05
_MEMORY_SHARE = 0.8
# Voxels of a patch where nothing else limits it: what a CPU does in a tenth of a second, what a GPU does well.
_PATCH_VOXELS = {"cpu": 2**17, "cuda": 2**21}
# With a short budget on a CPU (docs/training.md), and from how many such patches on they get larger.
_SMALL_PATCH_VOXELS, _PATCHES_FOR_SIZE = 3 * 2**14, 40_000
_LONG = 16
_SHOWN = ("axcodes", "spacing_mm", "crop", "channels", "image_interpolation", "label_interpolation", "patch_size",
          "batch_size", "network", "precision", "max_steps", "num_threads", "mirror_axes", "mirror_swaps",
          "class_weights")  # fmt: skip


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
    pace: StepCost | None = None,
) -> Plan:
    """Decides everything that `config` and `network` leave open.

    accumulate: planned batches per step. timer: seconds of a step of one batch; None measures them on `device`. pace:
    what steps and validation are made of, where a budget says how long they may take; None: the usual. Raises a
    ConfigError where pins contradict one another or the data, or memory holds not even the smallest patch.
    """
    space = decide_grid(config, cases)
    threads = (config.num_threads or usable_cores()) if device.type == "cpu" else None
    pace = pace or StepCost()
    measured_threads = pace.num_threads or threads
    goal, goal_reason = TrainingGoal.of(budget, max_steps, max_epochs, len(cases.training()), accumulate)
    goal = replace(goal, validating=_validating(pace, space), compiled=pace.compile)
    task = _Task(
        config, network, cases, space, device, config.memory_gib or _MEMORY_SHARE * _free_gib(device), goal,
        goal_reason, timer or (lambda work, precisions: seconds_per_step(work, precisions, device, measured_threads)),
        pace,
    )  # fmt: skip
    return _to_plan(task, _decide_patch(task), threads)


def _validating(pace: StepCost, space: GridPlan) -> ValidationCost:
    return ValidationCost(
        pace.validation_share,
        pace.validation_interval,
        pace.validation_cases,
        pace.validation_overlap,
        space.planned_shapes(),
    )


@dataclass(frozen=True)
class _Task:
    """What is planned for: the same whatever patch is considered."""

    config: PlanConfig
    network: AnyNetwork
    cases: Cases
    space: GridPlan
    device: torch.device
    limit_gib: float
    goal: TrainingGoal
    goal_reason: str
    timer: Timer
    pace: StepCost

    def work(self, shaping: PatchPlan) -> StepSpec:
        """A step with two patches, and all that takes its time."""
        cases, out_channels = self.cases, _out_channels(self.cases)
        ignore = None if cases.ignore_value is None else ignore_index(cases.structures, cases.overlapping)
        return StepSpec(
            shaping.network, len(cases.channels), out_channels, shaping.patch_size, 2, cases.overlapping,
            self.goal.accumulate, self.pace.loss, self.pace.optimizer, ignore,
        )  # fmt: skip

    def fits(self, work: StepSpec, precision: Precision) -> bool:
        return predict_memory(work, precision, self.device).total <= self.limit_gib


@dataclass(frozen=True)
class _Decision:
    shaping: PatchPlan
    work: StepSpec
    effort: TrainingBudget


def _out_channels(cases: Cases) -> int:
    return len(cases.structures) + (0 if cases.overlapping else 1)


def _decide_patch(task: _Task) -> _Decision:
    """With a short budget on a CPU small patches, unless so many of them can be seen that larger ones pay."""
    usual, on_cpu = _PATCH_VOXELS[task.device.type], task.device.type == "cpu"
    if task.goal.budget_seconds is None or not on_cpu or task.config.patch_size is not None:
        return _decide(task, usual)
    small = _decide(task, _SMALL_PATCH_VOXELS)
    if small.effort.patches >= _PATCHES_FOR_SIZE:
        return _decide(task, usual)
    small.shaping.reasons["patch_size"] += (
        f"; with about {small.effort.patches} of them, more teach more than larger ones"
    )
    return small


def _decide(task: _Task, voxels: int) -> _Decision:
    """Shape and effort with patches of up to about `voxels`."""
    config, space, cases = task.config, task.space, task.cases
    shaping = decide_patch_plan(
        config, task.network, space.median_shape, space.spacing_mm, cases, _out_channels(cases), task.device,
        task.limit_gib, voxels, space.largest_shape, task.goal.accumulate,
    )  # fmt: skip
    work = task.work(shaping)
    if config.patch_size is not None:  # before a step of it is tried, which may be more than memory holds
        _refuse_pins_beyond(task.limit_gib, _least_gib(task, work), config)
    effort = decide_training_budget(
        task.goal, task.goal_reason, work, has_width(task.network.model_dump()), config.batch_size, config.precision,
        task.device, task.timer, _largest_batch(space, work), task.fits,
    )  # fmt: skip
    return _Decision(shaping, work, effort)


def _least_gib(task: _Task, work: StepSpec) -> float:
    """What training takes at the least: in the precision, and with the batch, that take less where they are open."""
    config = task.config
    possible: tuple[Precision, ...] = (config.precision,) if config.precision else ("bf16", "fp32")
    tried = replace(work, network=network_config(work.network).model_dump(), batch_size=config.batch_size or 1)
    return min(predict_memory(tried, precision, task.device).total for precision in possible)


def _to_plan(task: _Task, decision: _Decision, threads: int | None) -> Plan:
    """The plan of a decision; a ConfigError where its pins take more memory than there is."""
    config, space, cases = task.config, task.space, task.cases
    shaping, effort = decision.shaping, decision.effort
    predicted, memory_costs = _predicted(config, cases, space, effort, decision.work, task.device)
    _refuse_pins_beyond(task.limit_gib, predicted["train_memory_gib"], config)
    return Plan(
        spacing_mm=space.spacing_mm,
        crop=space.crop,
        image_interpolation=space.image_interpolation,
        label_interpolation=space.label_interpolation,
        channels=space.channels,
        resample_channels=cases.resample_channels,
        structures=cases.structures,
        ignore_value=cases.ignore_value,
        overlapping=cases.overlapping,
        patch_size=shaping.patch_size,
        batch_size=effort.batch_size,
        network=network_config(effort.network).model_dump(mode="json"),
        max_steps=effort.max_steps,
        precision=effort.precision,
        device=task.device.type,
        num_threads=threads,
        mirror_axes=space.mirror_axes,
        mirror_swaps=config.left_right_pairs,
        class_weights=inverse_frequency(cases, space.crop, space.spacing_mm),
        predicted={key: float(f"{value:.4g}") for key, value in predicted.items()},
        reasons=_reasons(task, decision, memory_costs),
    )


def _reasons(task: _Task, decision: _Decision, memory_costs: Mapping[str, str]) -> dict[str, str]:
    """Of every value, with what pins cost."""
    shaping, effort = decision.shaping, decision.effort
    reasons = task.space.reasons | shaping.reasons | effort.reasons
    reasons["network"] = f"{shaping.reasons['network']}; {effort.reasons['network']}"
    for key, cost in memory_costs.items():
        reasons[key] += f"; {cost}"
    reasons |= _other_reasons(task.config, task.device)
    if absent := absent_structures(task.cases):
        reasons["class_weights"] += f"; no training case holds {', '.join(absent)}: as the smallest structure there is"
    return reasons


def _other_reasons(config: PlanConfig, device: torch.device) -> dict[str, str]:
    """Of what is no choice, or a pin alone."""
    threads = "of a training on a CPU" if device.type != "cpu" else f"all {usable_cores()} cores"
    if config.num_threads and device.type == "cpu":
        threads = f"pinned; open it would be {usable_cores()}, all cores"
    swaps = "pinned (plan.left_right_pairs)" if config.left_right_pairs else "plan.left_right_pairs names none"
    return {
        "axcodes": "axes are anatomical, so that flips and positions mean the same in every scan",
        "num_threads": threads,
        "mirror_swaps": f"what changes places where axis 0 is flipped: {swaps}",
        "class_weights": "inverse to volume on the planned grid; used where train.loss.class_weights asks for it",
    }


def _largest_batch(space: GridPlan, work: StepSpec) -> int:
    voxels = len(space.grids) * math.prod(space.median_shape)
    return max(int(_BATCH_SHARE * voxels / math.prod(work.patch_size)), 2)


def _predicted(
    config: PlanConfig, cases: Cases, space: GridPlan, effort: TrainingBudget, work: StepSpec, device: torch.device
) -> tuple[dict[str, float], dict[str, str]]:
    """What the run will take, and what pins of batch and precision cost in memory, by key."""

    def train_gib(batch_size: int, precision: Any) -> float:
        chosen = replace(work, network=effort.network, batch_size=batch_size)
        return predict_memory(chosen, precision, device).total

    label_type = index_type(cases.structures, cases.overlapping)
    store = sum(case_bytes(shape, len(space.channels), label_type) for shape in space.planned_shapes())
    needed = train_gib(effort.batch_size, effort.precision)
    predicted = {"train_memory_gib": needed, "store_gib": store / 2**30}
    if effort.seconds_per_step is not None:
        predicted["seconds_per_step"] = effort.seconds_per_step
        predicted["training_minutes"] = effort.seconds_per_step * effort.max_steps / 60
    costs = {}
    if config.batch_size not in (None, 2):
        costs["batch_size"] = f"{needed:.2g} GiB to train, {train_gib(2, effort.precision):.2g} with a batch of 2"
    if config.precision is not None:
        other = "bf16" if config.precision == "fp32" else "fp32"
        costs["precision"] = f"{needed:.2g} GiB to train, {train_gib(effort.batch_size, other):.2g} in {other}"
    return predicted, costs


def _refuse_pins_beyond(limit_gib: float, needed_gib: float, config: PlanConfig) -> None:
    """A ConfigError where pins ask for more memory than training may take; what is open has been chosen to fit."""
    pins = {"plan.patch_size": config.patch_size, "plan.batch_size": config.batch_size}
    pinned = [key for key, pin in pins.items() if pin is not None]
    if pinned and needed_gib > limit_gib:
        raise ConfigError(
            f"{', '.join(pinned)}: training would need about {needed_gib:.2g} GiB, but {limit_gib:.2g} GiB may be "
            "used; choose less, leave it open, or set plan.memory_gib if more can be had"
        )


def _free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    return available_memory_gib()


def plan_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """The plan as rows for a person: key, value, reason."""
    values: Mapping[str, Any] = plan.model_dump(mode="json")
    settings = (f"{key}={_short(value)}" for key, value in plan.network.items() if value not in (None, 0, 0.0, False))
    special = {
        "network": " ".join(settings).removeprefix("name="),
        "channels": ", ".join(f"{channel.name} {channel.scheme}" for channel in plan.channels),
    }
    rows = [(key, special.get(key, _few(values[key])), plan.reasons.get(key, "")) for key in _SHOWN]
    return [*rows, *((key, f"{value:.3g}", "predicted") for key, value in plan.predicted.items())]


def _few(value: Any) -> str:
    """A value as it is written; of a list as long as the structures are many, how many and how far they go."""
    if isinstance(value, list) and len(value) > _LONG and all(isinstance(each, int | float) for each in value):
        return f"{len(value)} values from {min(value):.3g} to {max(value):.3g}"
    return str(value)


def _short(value: Any) -> str:
    """Levels as 16-32-64, per axis as 111-222."""
    if isinstance(value, (list, tuple)):
        return "-".join("".join(map(str, each)) if isinstance(each, (list, tuple)) else str(each) for each in value)
    return str(value)
