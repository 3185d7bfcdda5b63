"""What training says and writes while it runs: losses, time by purpose, rows of the records, the progress note."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from pipeline.base.process_memory import peak_memory_gib
from pipeline.base.terminal import format_duration
from pipeline.training.loggers.csv_logger import CsvTable
from pipeline.training.loggers.mlflow_logger import MlflowLogger
from pipeline.training.loggers.tensorboard_logger import TensorboardLogger
from pipeline.training.roll_back_after_nan import NotFiniteError
from pipeline.training.save_and_resume import TrainState

if TYPE_CHECKING:
    from pipeline.training.fold_run import FoldRun
    from pipeline.training.loggers.tensorboard_images import ValidationImage

log = logging.getLogger(__name__)

_PURPOSES = ("data", "step", "validation")
_MOST_SHOWN = 8
"""Structures in a line of the terminal."""


class TrainLogger:
    """Keeps `train_state.losses`, `norms` and `seconds` up to date and turns them into rows and words.

    Of several processes only the first writes and speaks.
    """

    def __init__(self, fold_run: FoldRun, train_state: TrainState, device: torch.device) -> None:
        self.fold_run, self.train_state, self.device, self.clock = fold_run, train_state, device, fold_run.clock
        done = train_state.step - train_state.validation_due  # the row of a validation that is due comes again
        self.records = (
            MetricFiles(fold_run.folder, fold_run.structures, done, fold_run.tensorboard, fold_run.mlflow)
            if fold_run.world.is_first
            else None
        )
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.since_row = dict.fromkeys(_PURPOSES, 0.0)
        self.since_start = dict.fromkeys(_PURPOSES, 0.0)
        self.first_step = self.row_step = train_state.step
        self.started, self.earlier = self.clock(), train_state.seconds
        self.last_loss, self.said_at = math.nan, self.started

    def __enter__(self) -> TrainLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.records is not None:
            self.records.close(error)

    @contextmanager
    def timed(self, purpose: str) -> Iterator[None]:
        """Adds the time inside to a purpose: data, step or validation."""
        before = self.clock()
        yield
        passed = self.clock() - before
        self.since_row[purpose] += passed
        self.since_start[purpose] += passed

    def record_step(self, loss: torch.Tensor, norm: torch.Tensor, look: bool, scaled: bool) -> None:
        """Notes a step's loss and gradient norm.

        look: read the numbers noted since the last look, which on a GPU waits for it. Raises NotFiniteError if one is
        not finite; with scaled gradients (fp16) an infinite norm is an ordinary event and the step is left out.
        """
        self.update_elapsed()
        self.pending.append((loss, norm))
        if not look:
            return
        first = self.train_state.step - len(self.pending) + 1
        lost, grown = (torch.stack(values) for values in zip(*self.pending, strict=True))
        losses, norms = self.fold_run.world.mean(lost).tolist(), grown.tolist()
        self.pending.clear()
        for offset, (one_loss, one_norm) in enumerate(zip(losses, norms, strict=True)):
            if not math.isfinite(one_loss):
                raise NotFiniteError("loss", first + offset)
            if not math.isfinite(one_norm) and not scaled:
                raise NotFiniteError("gradient", first + offset)
        self.train_state.losses += losses
        self.train_state.norms += [norm for norm in norms if math.isfinite(norm)]

    def update_elapsed(self) -> None:
        """Brings `train_state.seconds` up to now."""
        self.train_state.seconds = self.earlier + self.clock() - self.started

    def show(self, pictures: Mapping[str, ValidationImage]) -> None:
        """Pictures of a validation, by case."""
        if self.records is not None:
            self.records.show(pictures, self.train_state.step)

    def write_row(self, lr: float, validated: bool) -> None:
        """One row of metrics.csv and timing.csv over the steps since the last one."""
        self.update_elapsed()
        train_state = self.train_state
        metrics: dict[str, int | float] = {"step": train_state.step, "lr": lr, "loss": _mean(train_state.losses)}
        if train_state.norms:
            metrics["grad_norm"] = _mean(train_state.norms)
        if validated:
            metrics["dice_mean"] = train_state.mean_dice
            metrics |= {f"dice_{name}": value for name, value in train_state.dice.items()}
        busy = self.since_row["data"] + self.since_row["step"]
        timing = {
            "step": train_state.step,
            "seconds": train_state.seconds,
            **{f"{purpose}_s": seconds for purpose, seconds in self.since_row.items()},
            "patches_per_s": self.fold_run.batch_size * (train_state.step - self.row_step) / busy if busy else 0.0,
            "peak_memory_gib": self._peak_memory_gib(),
        }
        if self.records is not None:
            self.records.add(metrics, timing)
        self.last_loss, self.row_step = metrics["loss"], train_state.step
        train_state.losses, train_state.norms = [], []
        self.since_row = dict.fromkeys(_PURPOSES, 0.0)

    def note(self) -> str:
        """Loss, Dice and where the time goes, in a few words."""
        losses = self.train_state.losses
        loss = f"loss {_mean(losses) if losses else self.last_loss:.3f}".replace("nan", "–")
        dice = [f"Dice {self.train_state.mean_dice:.3f}"] if self.train_state.dice else []
        total = sum(self.since_start.values()) or 1.0
        return "  ".join([loss, *dice, " ".join(f"{name} {s / total:.0%}" for name, s in self.since_start.items())])

    def log_progress(self) -> None:
        """One line: step, loss, Dice per structure, time left."""
        if self.fold_run.world.is_first:
            log.info("%s", self._line())
        self.said_at = self.clock()

    def log_if_due(self) -> None:
        """A line now and then where there is no terminal, and so no progress bar."""
        if not sys.stderr.isatty() and self.clock() - self.said_at >= self.fold_run.log_every:
            self.log_progress()

    def _line(self) -> str:
        train_state, max_steps = self.train_state, self.fold_run.max_steps
        passed = max(self.clock() - self.started, 1e-9)
        steps = train_state.step - self.first_step
        left = f"  {format_duration(passed / steps * (max_steps - train_state.step))} left" if steps else ""
        return f"  step {train_state.step}/{max_steps}  {self.note()}{format_dice(train_state.dice)}{left}"

    def _peak_memory_gib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return peak_memory_gib()


def format_dice(dice: Mapping[str, float]) -> str:
    """Dice per structure in brackets; of many structures the worst ones, since all are in metrics.csv."""
    shown = list(dice.items())
    if len(shown) > _MOST_SHOWN:
        shown = sorted(shown, key=lambda one: one[1])[:_MOST_SHOWN]
    each = ", ".join(f"{name} {value:.3f}" for name, value in shown)
    lowest = f"lowest of {len(dice)}: " if len(dice) > len(shown) else ""
    return f"  ({lowest}{each})" if each else ""


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


class MetricFiles:
    """All records of one fold, cut back to `resumed_step`."""

    def __init__(
        self, folder: Path, structures: Sequence[str], resumed_step: int, tensorboard: bool, mlflow: str | None = None
    ) -> None:
        dice = ["dice_mean", *(f"dice_{name}" for name in structures)]
        self.metrics = CsvTable(folder / "metrics.csv", ["step", "lr", "loss", "grad_norm", *dice], resumed_step)
        columns = ["step", "seconds", "data_s", "step_s", "validation_s", "patches_per_s", "peak_memory_gib"]
        self.timing = CsvTable(folder / "timing.csv", columns, resumed_step)
        self.tensorboard = TensorboardLogger(folder / "tensorboard", resumed_step) if tensorboard else None
        self.tracker = None if mlflow is None else MlflowLogger(mlflow, folder, resumed_step)

    def add(self, metrics: Mapping[str, int | float], timing: Mapping[str, int | float]) -> None:
        """One row of each; their `step` is the number of steps done."""
        self.metrics.add(metrics)
        self.timing.add(timing)
        if self.tensorboard is not None:
            self.tensorboard.add({**metrics, **timing}, int(metrics["step"]))
        if self.tracker is not None:
            self.tracker.add({**metrics, **timing}, int(metrics["step"]))

    def show(self, pictures: Mapping[str, ValidationImage], step: int) -> None:
        """Pictures of a validation, by case, for TensorBoard alone."""
        if self.tensorboard is not None:
            self.tensorboard.show(pictures, step)

    def close(self, error: BaseException | None = None) -> None:
        """Writes out what is still waiting. error: what ended the training early."""
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.tracker is not None:
            ended = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
            self.tracker.close(ended)
