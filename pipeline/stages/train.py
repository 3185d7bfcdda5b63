"""Stage `train`: what are the weights?"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import sha256_of, write_json
from pipeline.base.machine import Runtime, resolve_device
from pipeline.base.stage import Stage, duration
from pipeline.base.strict_model import StrictModel
from pipeline.config.train import TrainConfig
from pipeline.preprocessing.plan import read_plan
from pipeline.training.check_train_config import check_against_plan, pretrained_weights

log = logging.getLogger(__name__)


class TrainReads(StrictModel):
    """All of the configuration that training reads."""

    train: TrainConfig
    seed: int


def run(config: TrainReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Trains the folds into `out`, one after the other or, on a machine with several GPUs, one on each at a time.

    Folds that are finished stay, an unfinished one goes on. Started by torchrun, all processes call it together, and
    the first one writes. What does not suit the plan is refused first (`check_against_plan`).
    """
    plan = read_plan(inputs["plan"])
    check_against_plan(config.train, plan)
    from pipeline.base.heap import keep_freed_memory

    keep_freed_memory()
    from pipeline.training.distributed import process_group
    from pipeline.training.run_folds import TrainJob, train_folds_in_turn, train_folds_side_by_side

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
    from pipeline.planning.training_budget import DEFAULT_BUDGET, seconds

    with (folder / "timing.csv").open(newline="", encoding="utf-8") as stream:
        taken = float(list(csv.DictReader(stream))[-1]["seconds"])
    allowed = seconds(budget or DEFAULT_BUDGET)
    return f"{folder.name}: {duration(taken)} of the {duration(allowed)} that it was given ({taken / allowed - 1:+.0%})"


def _sources(config: TrainReads) -> Mapping[str, str]:
    """The digest of the weights that training begins from."""
    if config.train.pretrained is None:
        return {}
    try:
        return {"pretrained": sha256_of(pretrained_weights(config.train.pretrained))}
    except (DataError, OSError):
        return {"pretrained": "missing"}  # training will say so


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


STAGE = Stage(
    name="train",
    version=3,
    config=TrainReads,
    reads={"train": "train", "seed": "seed"},
    inputs=("sample", "plan"),
    outputs=("train.json", "fold_*/last.safetensors", "fold_*/best.safetensors", "fold_*/metrics.csv"),
    run=run,
    not_hashed={"*/timing.csv": (), "*/log.txt": (), "*/tensorboard/*": ()},
    resumes=True,
    keep_previous=True,
    sources=_sources,
    ignored_keys=("train.save_every", "train.data_threads", "train.tensorboard", "train.mlflow"),
)
