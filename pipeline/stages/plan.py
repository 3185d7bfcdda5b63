"""Stage `plan`: what should be done with this data, on this machine, in this time?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.heap import keep_freed_memory
from pipeline.base.machine import Runtime, resolve_device
from pipeline.base.terminal import format_table
from pipeline.dataset.loaded_cases import read_cases
from pipeline.planning.make_plan import make_plan
from pipeline.planning.plan_table import plan_rows
from pipeline.preprocessing.plan import write_plan
from pipeline.stages.stage_configs import PlanStageConfig

log = logging.getLogger(__name__)


def run(config: PlanStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:  # noqa: ARG001
    """Writes plan.json and prints every value with its reason. ConfigError where pins contradict data or network."""
    keep_freed_memory()  # as in training, whose steps are measured here

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
