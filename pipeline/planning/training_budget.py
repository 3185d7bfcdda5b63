"""Training budget: time, steps or epochs as configured, and the steps that fit into it."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field

import torch

from pipeline.base.errors import ConfigError
from pipeline.planning.step_timing import StepSpec
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


def seconds(text: str) -> float:
    """30m as 1800; s, m, h and d are known."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if not found or float(found[1]) == 0:
        raise ConfigError(f"train.budget: {text!r} is no time; write for instance 90s, 30m, 2h or 1d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def patches_seen(goal: TrainingGoal, work: StepSpec, step_seconds: float | None, device: torch.device) -> float:
    """How many patches training will see."""
    if goal.patches is not None:
        return goal.patches
    if goal.max_steps is not None:
        return goal.max_steps * goal.accumulate * work.batch_size
    return goal.batches_in_budget(work, step_seconds, device)[0] * work.batch_size


def steps_to_train(
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
