"""Stage `plan`: what should be done with this data, on this machine, in this time?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.machine import Runtime, resolve_device
from pipeline.base.stage import Stage
from pipeline.config.plan import PlanConfig, StepCost
from pipeline.models.networks.network_config import NetworkConfig

log = logging.getLogger(__name__)

_PACE = {
    "loss": "train.loss",
    "optimizer": "train.optimizer.name",
    "num_threads": "train.num_threads",
    "compile": "train.compile",
    "validation_share": "train.validation.share",
    "validation_interval": "train.validation.interval",
    "validation_cases": "train.validation.cases",
    "validation_overlap": "train.validation.overlap",
}
"""What decides how long a step takes. As the speed of the machine it is measured once, when a plan is made: a plan that
stands is not made again because of it."""


class PlanReads(StepCost):
    """All of the configuration that planning reads."""

    plan: PlanConfig
    network: NetworkConfig
    budget: str | None
    max_steps: int | None
    max_epochs: int | None
    accumulate: int
    device: str


def run(config: PlanReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:  # noqa: ARG001
    """Writes plan.json and prints every value with its reason. ConfigError where pins contradict data or network."""
    from pipeline.base.heap import keep_freed_memory

    keep_freed_memory()  # as in training, whose steps are measured here
    from pipeline.base.terminal import format_table
    from pipeline.dataset.cases_json import read_cases
    from pipeline.planning.make_plan import make_plan
    from pipeline.planning.plan_table import plan_rows
    from pipeline.preprocessing.plan import write_plan

    plan = make_plan(
        config.plan,
        config.network,
        read_cases(inputs["load"]),
        resolve_device(config.device),
        config.budget,
        config.max_steps,
        config.max_epochs,
        config.accumulate,
        pace=config,
    )
    write_plan(out, plan)
    log.info("%s", format_table(("plan", "value", "because"), plan_rows(plan)))


STAGE = Stage(
    name="plan",
    version=5,
    config=PlanReads,
    reads={
        "plan": "plan",
        "network": "train.network",
        "budget": "train.budget",
        "max_steps": "train.max_steps",
        "max_epochs": "train.max_epochs",
        "accumulate": "train.accumulate",
        **_PACE,
        "device": "device",
    },
    inputs=("load",),
    outputs=("plan.json",),
    run=run,
    not_hashed={"plan.json": ("predicted", "reasons")},
    ignored_keys=tuple(_PACE),
)
