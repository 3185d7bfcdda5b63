"""Stage `train`: what are the weights?"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.files import write_json
from pipeline.base.heap import keep_freed_memory
from pipeline.base.machine import Runtime, resolve_device
from pipeline.base.terminal import format_duration
from pipeline.config.train import TrainConfig
from pipeline.planning.training_budget import DEFAULT_BUDGET, seconds
from pipeline.preprocessing.plan import read_plan
from pipeline.stages.stage_configs import TrainStageConfig
from pipeline.training.check_train_against_plan import check_against_plan
from pipeline.training.distributed import process_group
from pipeline.training.run_folds import TrainJob, train_folds_in_turn, train_folds_side_by_side

log = logging.getLogger(__name__)


def run(config: TrainStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Trains the folds into `out`, one after the other or, on a machine with several GPUs, one on each at a time.

    Folds that are finished stay, an unfinished one goes on. Started by torchrun, all processes call it together, and
    the first one writes. What does not suit the plan is refused first (`check_against_plan`).
    """
    plan = read_plan(inputs["plan"])
    check_against_plan(config.train, plan)

    keep_freed_memory()

    order = TrainJob(config.train, config.seed, inputs["plan"], inputs["sample"], out)
    with process_group(resolve_device(runtime.device)) as (world, device):
        left = [fold for fold in order.folds if order.result(fold) is None]
        devices = [str(device)] if world.size > 1 else _devices(runtime.device)
        if len(left) > 1 and len(devices) > 1:
            train_folds_side_by_side(order, left, devices)
        train_folds_in_turn(order, order.folds, device, world)
        if not world.is_first:
            return
        results = {fold.name: order.result(fold) or {} for fold in order.folds}
        if config.train.max_steps is None and config.train.max_epochs is None:
            for fold in order.folds:
                log.info("%s", _of_budget(fold.folder(out), config.train.budget))
        _write_summary(config.train, plan.network, plan.precision, results, out)


def _devices(device: str) -> list[str]:
    """The devices that folds may be spread over: all GPUs, unless one of them, or the CPU, is asked for."""
    import torch

    if device not in {"auto", "cuda"} or torch.cuda.device_count() < 2:
        return [device]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _of_budget(folder: Path, budget: str | None) -> str:
    """How long the fold took, over all of its resumes, beside the time that it was given (planning's own if none)."""
    with (folder / "timing.csv").open(newline="", encoding="utf-8") as stream:
        taken = float(list(csv.DictReader(stream))[-1]["seconds"])
    allowed = seconds(budget or DEFAULT_BUDGET)
    of = f"{format_duration(taken)} of the {format_duration(allowed)}"
    return f"{folder.name}: {of} that it was given ({taken / allowed - 1:+.0%})"


def _write_summary(
    config: TrainConfig, network: Mapping[str, object], precision: str, results: Mapping[str, Mapping], out: Path
) -> None:
    write_json(
        out / "train.json",
        {
            "folds": [int(name) if name.isdigit() else name for name in results],
            "network": dict(network),
            "loss": config.loss.model_dump(mode="json"),
            "precision": precision,
            "steps": max(result["steps"] for result in results.values()),
            "validation": {
                name: {"dice": result["dice"], "best_step": result["best_step"], "cases": result["validation_cases"]}
                for name, result in results.items()
            },
        },
    )
