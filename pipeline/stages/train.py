"""Stage `train`: what are the weights?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.files import read_json, write_json
from pipeline.base.runtime import Runtime, resolve_device
from pipeline.base.stage import Stage
from pipeline.base.strict import Strict
from pipeline.data.plan import Plan, read_plan
from pipeline.training.settings import TrainConfig

if TYPE_CHECKING:
    import torch

    from pipeline.data.store import PatchStore

log = logging.getLogger(__name__)


class TrainReads(Strict):
    """All of the configuration that training reads."""

    train: TrainConfig
    seed: int


def run(config: TrainReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Trains the folds one after the other into `out`; folds that are finished stay, an unfinished one goes on.

    Started by torchrun, all processes call it together, and the first one writes.
    """
    from pipeline.base.allocator import keep_freed_memory

    keep_freed_memory()
    from pipeline.data.store import open_store
    from pipeline.training.assemble import Workshop, make_course, make_learner, set_up_torch
    from pipeline.training.distributed import joined
    from pipeline.training.folds import folds_to_train
    from pipeline.training.loop import RESULT, fit

    with joined(resolve_device(runtime.device)) as (world, device):
        plan, results = read_plan(inputs["plan"]), {}
        set_up_torch(config.train, plan, device)
        store = _kept_near(open_store(inputs["sample"] / "store"), plan, device)
        shop = Workshop(config.train, plan, store, config.seed, device, world)
        for fold in folds_to_train(config.train.folds, inputs["sample"]):
            folder = fold.folder(out)
            if (folder / RESULT).is_file():
                results[fold.name] = read_json(folder / RESULT)
                log.info("fold %s is trained already", fold.name)
                continue
            results[fold.name] = fit(make_course(shop, fold, folder), make_learner(shop))
        if world.is_first:
            _write_summary(config.train, plan.network, plan.precision, results, out)


def _kept_near(store: PatchStore, plan: Plan, device: torch.device) -> PatchStore:
    """The store, on a GPU that has room for it beside the training."""
    if device.type == "cuda":
        import torch

        free_gib = torch.cuda.mem_get_info(device)[0] / 2**30
        store = store.kept_on(str(device), free_gib, plan.predicted.get("train_memory_gib", free_gib))
    log.info("patches are read from %s: %s", store.where, store.reason)
    return store


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
    version=1,
    config=TrainReads,
    reads={"train": "train", "seed": "seed"},
    inputs=("sample", "plan"),
    promises=("train.json", "fold_*/last.safetensors", "fold_*/best.safetensors", "fold_*/metrics.csv"),
    run=run,
    undigested={"*/timing.csv": (), "*/tensorboard/*": ()},
    resumes=True,
    keep_previous=True,
)
