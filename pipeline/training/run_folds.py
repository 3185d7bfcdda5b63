"""Folds one after the other on one device, or side by side: as many at once as there are devices, each in its process.

A fold is a function of seed and settings, so that both ways give the same weights on the same kind of device.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.base.child_process import child_command, read_requests, start_child
from pipeline.base.errors import EXIT_INTERRUPTED, SegpipeError, TrainingError
from pipeline.base.files import read_json
from pipeline.base.heap import keep_freed_memory
from pipeline.base.machine import resolve_device
from pipeline.config.train import TrainConfig
from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.preprocessing.plan import read_plan
from pipeline.sampling.patch_store import open_store
from pipeline.training.build_fold_run import make_fold_run
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.fold_run import RESULT
from pipeline.training.move_store_to_gpu import move_store_to_gpu
from pipeline.training.network_loss_optimizer import make_train_step
from pipeline.training.select_folds import FoldSplit, folds_to_train
from pipeline.training.threads_and_determinism import set_up_torch
from pipeline.training.train_context import TrainContext
from pipeline.training.trainer import fit

log = logging.getLogger(__name__)

LOG = "log.txt"
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class TrainJob:
    """What to train: settings, the finished folders of `plan` and `sample`, and where to."""

    train: TrainConfig
    seed: int
    plan: Path
    sample: Path
    out: Path

    def to_json(self) -> dict[str, Any]:
        """Return the request for another process."""
        paths = {name: str(getattr(self, name).absolute()) for name in ("plan", "sample", "out")}
        return {"train": self.train.model_dump(mode="json"), "seed": self.seed, **paths}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainJob:
        paths = {name: Path(content[name]) for name in ("plan", "sample", "out")}
        return cls(TrainConfig.model_validate(content["train"]), int(content["seed"]), **paths)

    @property
    def folds(self) -> list[FoldSplit]:
        return folds_to_train(self.train.folds, self.sample)

    def result(self, fold: FoldSplit) -> dict[str, Any] | None:
        """What a fold gave; None where it is not trained to its end."""
        path = fold.folder(self.out) / RESULT
        return dict(read_json(path)) if path.is_file() else None


def train_folds_in_turn(
    order: TrainJob, folds: Sequence[FoldSplit], device: torch.device, world: World = SINGLE_PROCESS
) -> None:
    """Trains the folds that are not finished, one after the other; an unfinished one goes on."""
    left = [fold for fold in folds if order.result(fold) is None]
    for fold in folds:
        if fold not in left:
            log.info("fold %s is trained already", fold.name)
    if not left:
        return
    plan = read_plan(order.plan)
    set_up_torch(order.train, plan, device)
    reserved_gib = plan.predicted.get("train_memory_gib", 0.0) if device.type == "cpu" else 0.0
    store = open_store(order.sample / "store", reserved_gib=reserved_gib)
    store = move_store_to_gpu(store, plan, device, TorchArrays(device).free_gib())
    shop = TrainContext(order.train, plan, store, order.seed, device, world)
    for fold in left:
        fit(make_fold_run(shop, fold, fold.folder(order.out)), make_train_step(shop))


def train_folds_side_by_side(order: TrainJob, folds: Sequence[FoldSplit], devices: Sequence[str]) -> None:
    """Trains folds at the same time, one on each device; what each says goes to `log.txt` in its folder.

    Where one fails the others go on; then a TrainingError names it. An interruption is passed on to all of them, which
    save what they have: the same command goes on.
    """
    waiting, running, failed = list(folds), dict[str, tuple[FoldSplit, subprocess.Popen]](), list[FoldSplit]()
    try:
        while waiting or running:
            for device in devices:
                if device not in running and waiting:
                    fold = waiting.pop(0)
                    running[device] = fold, _begin(order, fold, device, len(devices))
            for device, (fold, process) in list(running.items()):
                if process.poll() is not None:
                    del running[device]
                    failed += [fold] if process.returncode else []
                    log.info("fold %s %s", fold.name, "failed" if process.returncode else "is trained")
            time.sleep(_LOOK_EVERY_S)
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            process.wait()
    if failed:
        each = "; ".join(f"fold {fold.name}: {_last_line(fold.folder(order.out) / LOG)}" for fold in failed)
        raise TrainingError(f"{len(failed)} of {len(folds)} folds failed. {each}")


def _begin(order: TrainJob, fold: FoldSplit, device: str, beside: int) -> subprocess.Popen:
    folder = fold.folder(order.out)
    folder.mkdir(parents=True, exist_ok=True)
    command = child_command("pipeline.training.run_folds", fold.name, device)
    variables = {"LOCAL_WORLD_SIZE": str(beside)}  # they share cores and memory
    with (folder / LOG).open("a", encoding="utf-8") as said:
        process = start_child(command, order.to_json(), variables, output=said)
    log.info("fold %s trains on %s; what it says is in %s", fold.name, device, folder / LOG)
    return process


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _ask_to_stop() -> None:
    """Send this process the signal on which training saves its state and ends."""
    os.kill(os.getpid(), signal.SIGTERM)


def main(fold_name: str, device: str) -> int:
    """Train one fold in this process, as the parent's request says, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    keep_freed_memory()  # before the thread that reads requests: a thread has memory of its own
    order = TrainJob.from_json(next(read_requests(stop=_ask_to_stop)))
    try:
        train_folds_in_turn(order, [fold for fold in order.folds if fold.name == fold_name], resolve_device(device))
    except SegpipeError as error:
        print(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
