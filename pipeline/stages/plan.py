"""Stage `plan`: what should be done with this data, on this machine, in this time?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.runtime import Runtime, resolve_device
from pipeline.base.stage import Stage
from pipeline.base.strict import Strict
from pipeline.models.network_config import NetworkConfig
from pipeline.planning.settings import PlanConfig

log = logging.getLogger(__name__)


class PlanReads(Strict):
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
    from pipeline.base.allocator import keep_freed_memory

    keep_freed_memory()  # as in training, whose steps are measured here
    from pipeline.base.terminal import format_table
    from pipeline.data.cases import read_cases
    from pipeline.data.plan import write_plan
    from pipeline.planning.decide import make_plan, shown

    plan = make_plan(
        config.plan,
        config.network,
        read_cases(inputs["load"]),
        resolve_device(config.device),
        config.budget,
        config.max_steps,
        config.max_epochs,
        config.accumulate,
    )
    write_plan(out, plan)
    log.info("%s", format_table(("plan", "value", "because"), shown(plan)))


STAGE = Stage(
    name="plan",
    version=3,
    config=PlanReads,
    reads={
        "plan": "plan",
        "network": "train.network",
        "budget": "train.budget",
        "max_steps": "train.max_steps",
        "max_epochs": "train.max_epochs",
        "accumulate": "train.accumulate",
        "device": "device",
    },
    inputs=("load",),
    promises=("plan.json",),
    run=run,
    undigested={"plan.json": ("predicted", "reasons")},
)
