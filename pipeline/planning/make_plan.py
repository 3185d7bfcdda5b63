"""The plan: pins first, then the data, then what machine and time allow; every value with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.base.machine import usable_cores
from pipeline.config.plan import PlanConfig, StepCostConfig
from pipeline.dataset.label_encoding import ignore_index, index_type
from pipeline.dataset.loaded_cases import Cases
from pipeline.models.networks.network_config import AnyNetwork, network_config
from pipeline.planning.class_weights import absent_structures, inverse_frequency
from pipeline.planning.network_width import has_width
from pipeline.planning.patch_size import PatchPlan, decide_patch_plan
from pipeline.planning.preprocessing_plan import decide_grid
from pipeline.planning.step_timing import Precision, StepSpec, seconds_per_step
from pipeline.planning.training_budget import TrainingGoal
from pipeline.planning.training_grids import GridPlan
from pipeline.planning.training_memory import free_gib, predict_memory, refuse_pins_beyond
from pipeline.planning.validation_cost import ValidationCost
from pipeline.planning.width_batch_precision import Timer, TrainingBudget, batch_size_limit, decide_training_budget
from pipeline.preprocessing.plan import Plan
from pipeline.sampling.store_size import case_bytes

_MEMORY_SHARE = 0.8
# Voxels of a patch where nothing else limits it: what a CPU does in a tenth of a second, what a GPU does well.
_PATCH_VOXELS = {"cpu": 2**17, "cuda": 2**21}
# With a short budget on a CPU (docs/training.md), and from how many such patches on they get larger.
_SMALL_PATCH_VOXELS, _PATCHES_FOR_SIZE = 3 * 2**14, 40_000


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
    pace: StepCostConfig | None = None,
) -> Plan:
    """Decides everything that `config` and `network` leave open.

    accumulate: planned batches per step. timer: seconds of a step of one batch; None measures them on `device`. pace:
    what steps and validation are made of, where a budget says how long they may take; None: the usual. Raises a
    ConfigError where pins contradict one another or the data, or memory holds not even the smallest patch.
    """
    space = decide_grid(config, cases)
    threads = (config.num_threads or usable_cores()) if device.type == "cpu" else None
    pace = pace or StepCostConfig()
    measured_threads = pace.num_threads or threads
    goal, goal_reason = TrainingGoal.of(budget, max_steps, max_epochs, len(cases.training()), accumulate)
    goal = replace(goal, validating=ValidationCost.of(pace, space.planned_shapes()), compiled=pace.compile)
    task = _PlanTask(
        config, network, cases, space, device, config.memory_gib or _MEMORY_SHARE * free_gib(device), goal,
        goal_reason, timer or (lambda work, precisions: seconds_per_step(work, precisions, device, measured_threads)),
        pace,
    )  # fmt: skip
    return _to_plan(task, _decide_patch(task), threads)


@dataclass(frozen=True)
class _PlanTask:
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
    pace: StepCostConfig

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


def _decide_patch(task: _PlanTask) -> _Decision:
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


def _decide(task: _PlanTask, voxels: int) -> _Decision:
    """Shape and effort with patches of up to about `voxels`."""
    config, space, cases = task.config, task.space, task.cases
    shaping = decide_patch_plan(
        config, task.network, space.median_shape, space.spacing_mm, cases, _out_channels(cases), task.device,
        task.limit_gib, voxels, space.largest_shape, task.goal.accumulate,
    )  # fmt: skip
    work = task.work(shaping)
    if config.patch_size is not None:  # before a step of it is tried, which may be more than memory holds
        refuse_pins_beyond(task.limit_gib, _least_gib(task, work), config)
    effort = decide_training_budget(
        task.goal, task.goal_reason, work, has_width(task.network.model_dump()), config.batch_size, config.precision,
        task.device, task.timer, batch_size_limit(space, work), task.fits,
    )  # fmt: skip
    return _Decision(shaping, work, effort)


def _least_gib(task: _PlanTask, work: StepSpec) -> float:
    """What training takes at the least: in the precision, and with the batch, that take less where they are open."""
    config = task.config
    possible: tuple[Precision, ...] = (config.precision,) if config.precision else ("bf16", "fp32")
    tried = replace(work, network=network_config(work.network).model_dump(), batch_size=config.batch_size or 1)
    return min(predict_memory(tried, precision, task.device).total for precision in possible)


def _to_plan(task: _PlanTask, decision: _Decision, threads: int | None) -> Plan:
    """The plan of a decision; a ConfigError where its pins take more memory than there is."""
    config, space, cases = task.config, task.space, task.cases
    shaping, effort = decision.shaping, decision.effort
    predicted, memory_costs = _predicted(config, cases, space, effort, decision.work, task.device)
    refuse_pins_beyond(task.limit_gib, predicted["train_memory_gib"], config)
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


def _reasons(task: _PlanTask, decision: _Decision, memory_costs: Mapping[str, str]) -> dict[str, str]:
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
