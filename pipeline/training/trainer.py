"""The training loop of one fold, and its manners: save, resume, roll back, stop when asked.

The state on disk is all that is needed to go on exactly: batches, learning rate and random numbers are functions of the
step. Rolling back after a loss that is not a number is resuming with a lower rate.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from pipeline.base.errors import ConfigError, TrainingError
from pipeline.base.files import write_json
from pipeline.base.machine import is_out_of_memory
from pipeline.base.stage import duration
from pipeline.base.terminal import progress
from pipeline.models.checkpoint import save_weights
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.prefetch import Batch, prefetch
from pipeline.training.stop_signals import stop_requested
from pipeline.training.train_logger import TrainLogger
from pipeline.training.train_state import (
    NotFiniteError,
    TrainState,
    has_train_state,
    load_train_state,
    remove_train_state,
    save_train_state,
    seconds_between_saves,
)
from pipeline.training.train_step import TrainStep
from pipeline.training.validation import ValidationPlan

if TYPE_CHECKING:
    from pipeline.config.train import EarlyStoppingConfig
    from pipeline.training.tensorboard_images import ValidationImage

log = logging.getLogger(__name__)

LAST, BEST, RESULT = "last.safetensors", "best.safetensors", "result.json"
_RATE_AFTER_ROLLING_BACK = 0.5
_MEET_EVERY = 20

Validate = Callable[[Mapping[str, torch.Tensor], int, Callable[[], None]], dict[str, float]]
"""Weights, the number of windows at once, and what is called before each case, to mean Dice per structure."""


@dataclass(frozen=True)
class FoldRun:
    """What training one fold consists of, apart from what learns.

    draw: step to batch. rate: step to learning rate. pictures: of the last validation, by case. save_every, log_every:
    seconds between saves, and between lines if nobody sees a progress bar. most_unsaved: seconds of training since the
    last save with which a validation, which may take minutes, is begun: a kill would cost them. clock: gives seconds.
    """

    name: str
    folder: Path
    structures: tuple[str, ...]
    seed: int
    max_steps: int
    batch_size: int
    draw: Callable[[int], Batch]
    rate: Callable[[int], float]
    validate: Validate
    validation: ValidationPlan
    pictures: Callable[[], Mapping[str, ValidationImage]] = dict
    early_stopping: EarlyStoppingConfig | None = None
    data_threads: int = 1
    save_every: float = 30.0
    log_every: float = 60.0
    most_unsaved: float = 5.0
    clock: Callable[[], float] = time.monotonic
    tensorboard: bool = True
    mlflow: str | None = None
    world: World = SINGLE_PROCESS

    def row_due(self, step: int) -> bool:
        """Whether a row of metrics.csv follows step number `step`: about 200 rows in all."""
        return step % max(self.max_steps // 200, 1) == 0 or step == self.max_steps


def fit(fold_run: FoldRun, train_step: TrainStep) -> dict[str, Any]:
    """Trains to the end, from the state in the fold's folder if there is one, and returns `result.json`'s content.

    Leaves last and best weights, metrics and timing. Raises TrainingError where the loss is not a number twice, and
    KeyboardInterrupt after SIGTERM or SIGINT; both leave a state to go on from.
    """
    train_state = _start_or_resume(fold_run, train_step)
    with stop_requested() as asked:
        while True:
            try:
                _train(fold_run, train_step, train_state, asked)
                return _finish(fold_run, train_step, train_state)
            except NotFiniteError as fault:
                train_state = _roll_back(fold_run, train_step, fault, train_state.seconds)


def _train(fold_run: FoldRun, train_step: TrainStep, train_state: TrainState, asked: threading.Event) -> None:
    world, checkpoints = fold_run.world, _CheckpointTimer(fold_run, train_step, train_state)
    with (
        TrainLogger(fold_run, train_state, train_step.device) as logger,
        prefetch(fold_run.draw, train_state.step, fold_run.max_steps, fold_run.data_threads) as batches,
        progress(fold_run.name, fold_run.max_steps, train_state.step, shown=world.is_first) as bar,
    ):
        if train_state.validation_due:
            _validate(fold_run, train_step, train_state, logger, checkpoints, asked)
        for step in range(train_state.step, fold_run.max_steps):
            if _should_stop_early(fold_run, train_state):
                log.info("stopped early: no better validation since step %s", train_state.best_step)
                return
            lr = fold_run.rate(step) * train_state.rate_factor
            with (
                logger.timed("data"),
                _explain_out_of_memory(fold_run, "drawing a batch", train_step.device.type != "cpu"),
            ):
                batch = next(batches)
            with logger.timed("step"):
                torch.manual_seed((fold_run.seed * 1_000_003 + step) * world.size + world.rank)
                loss, norm = train_step.step(batch, step, lr)
            train_state.step = step + 1

            validate = fold_run.validation.due(train_state.step, fold_run.max_steps)
            row = validate or fold_run.row_due(train_state.step)
            # Several processes can only decide together, and meet now and then; one decides at any step.
            meet = row or world.size == 1 or train_state.step % _MEET_EVERY == 0
            stop = meet and world.any(asked.is_set(), train_step.device)
            save = meet and world.any(stop or checkpoints.due, train_step.device)
            with logger.timed("step"):  # on a GPU this waits for the steps
                look = meet and (row or save or train_step.device.type == "cpu")
                logger.record_step(loss, norm, look=look, scaled=train_step.scaled)
            if validate:
                _validate(fold_run, train_step, train_state, logger, checkpoints, asked)
            elif row:
                logger.write_row(lr, validated=False)
            if stop:
                _stop(fold_run, train_state, checkpoints)
            if save and not validate:
                checkpoints.save()
            bar.advance(1, logger.note())
            logger.log_if_due()


def _validate(
    fold_run: FoldRun,
    train_step: TrainStep,
    train_state: TrainState,
    logger: TrainLogger,
    checkpoints: _CheckpointTimer,
    asked: threading.Event,
) -> None:
    """Scores the weights after `train_state.step`, writes the row and saves.

    It can take minutes. Where it is killed or stopped in them, the saved state says that it is due, and going on begins
    with it.
    """

    def stop_if_asked() -> None:
        if fold_run.world.any(asked.is_set(), train_step.device):
            logger.update_elapsed()
            _stop(fold_run, train_state, checkpoints)

    train_state.validation_due = True
    if fold_run.world.any(checkpoints.age > fold_run.most_unsaved, train_step.device):
        checkpoints.save()
    with logger.timed("validation"), _explain_out_of_memory(fold_run, "a validation", train_step.device.type != "cpu"):
        dice = fold_run.validate(train_step.validated_weights(), train_step.micro_batch, stop_if_asked)
        train_state.dice = fold_run.world.as_first(dice, fold_run.structures, train_step.device)
        logger.show(fold_run.pictures())
    train_state.validation_due = False
    logger.update_elapsed()
    _keep_best(fold_run, train_step, train_state)
    logger.log_progress()
    logger.write_row(fold_run.rate(train_state.step - 1) * train_state.rate_factor, validated=True)
    checkpoints.save()
    stop_if_asked()  # in its last case: nothing else may come that looks


def _stop(fold_run: FoldRun, train_state: TrainState, checkpoints: _CheckpointTimer) -> NoReturn:
    checkpoints.save()
    log.info("stopped at step %d of %d, saved", train_state.step, fold_run.max_steps)
    raise KeyboardInterrupt


@contextmanager
def _explain_out_of_memory(fold_run: FoldRun, what: str, on_gpu: bool) -> Iterator[None]:
    """Makes a want of memory in `what`, which cannot be done in smaller portions, a TrainingError with its cure."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        elsewhere = "ram, which leaves a GPU's memory to training" if on_gpu else "disk, which holds no scan in memory"
        raise TrainingError(
            f"{fold_run.name}: not enough memory for {what} ({str(error).splitlines()[0]}). End what else uses it, and "
            "the same command goes on from the last save; or use a smaller plan.patch_size or plan.batch_size, or "
            f"sample.store: {elsewhere}"
        ) from error


def _start_or_resume(fold_run: FoldRun, train_step: TrainStep) -> TrainState:
    resumes = has_train_state(fold_run.folder)
    fold_run.world.wait()
    if not resumes:
        train_state = TrainState(processes=fold_run.world.size)
        _save(fold_run, train_state, train_step)
        return train_state
    train_state = load_train_state(fold_run.folder, train_step)
    if train_state.processes != fold_run.world.size:
        begun, now = (f"{n} process{'es' if n > 1 else ''}" for n in (train_state.processes, fold_run.world.size))
        how = "with torchrun" if train_state.processes > 1 else "without torchrun"
        raise ConfigError(
            f"{fold_run.name} was begun with {begun} and cannot go on with {now}: its batches would be others, and its "
            f"weights those of neither run. Start it with {begun} ({how}), or begin anew with --force"
        )
    log.info("%s: resumed at step %d", fold_run.name, train_state.step)
    return train_state


class _CheckpointTimer:
    """When the state was saved last, and when it is to be saved again."""

    def __init__(self, fold_run: FoldRun, train_step: TrainStep, train_state: TrainState) -> None:
        self.fold_run, self.train_step, self.train_state = fold_run, train_step, train_state
        self.at, self.took = self.fold_run.clock(), 0.0

    @property
    def age(self) -> float:
        return self.fold_run.clock() - self.at

    @property
    def due(self) -> bool:
        return self.age > seconds_between_saves(self.fold_run.save_every, self.took)

    def save(self) -> None:
        began = self.fold_run.clock()
        _save(self.fold_run, self.train_state, self.train_step)
        self.at = self.fold_run.clock()
        self.took = self.at - began


def _save(fold_run: FoldRun, train_state: TrainState, train_step: TrainStep) -> None:
    if fold_run.world.is_first:
        save_train_state(fold_run.folder, train_state, train_step)
    fold_run.world.wait()


def _keep_best(fold_run: FoldRun, train_step: TrainStep, train_state: TrainState) -> None:
    """Keeps the weights if the mean Dice over structures is the best so far, and counts validations without a gain."""
    least_gain = fold_run.early_stopping.min_delta if fold_run.early_stopping else 0.0
    train_state.since_better += 1
    if train_state.mean_dice > train_state.mean_to_beat + least_gain:  # small gains add up until they are one
        train_state.since_better, train_state.mean_to_beat = 0, train_state.mean_dice
    if train_state.mean_dice > train_state.best_mean:
        train_state.best_mean, train_state.best_step, train_state.best_dice = (
            train_state.mean_dice,
            train_state.step,
            train_state.dice,
        )
        if fold_run.world.is_first:
            save_weights(fold_run.folder / BEST, train_step.validated_weights())


def _should_stop_early(fold_run: FoldRun, train_state: TrainState) -> bool:
    return fold_run.early_stopping is not None and train_state.since_better >= fold_run.early_stopping.patience


def _roll_back(fold_run: FoldRun, train_step: TrainStep, fault: NotFiniteError, seconds: float) -> TrainState:
    """The last good state with a lower rate, and with the time that was spent; the second time, the end."""
    train_state = load_train_state(fold_run.folder, train_step)
    train_state.seconds = seconds
    fold_run.world.wait()
    if train_state.rolled_back_at is not None:
        if fold_run.world.is_first:
            save_weights(fold_run.folder / LAST, train_step.validated_weights())
        raise TrainingError(
            f"{fold_run.name}: {fault} again at step {fault.step}, after rolling back from step "
            f"{train_state.rolled_back_at} to a lower learning rate; the weights of step {train_state.step} are in "
            f"{fold_run.folder / LAST}. Use a lower train.optimizer.lr, train.grad_clip or fp32 (plan.precision), and "
            "look for extreme intensities with `segpipe check`"
        )
    train_state.rolled_back_at = fault.step
    train_state.rate_factor *= _RATE_AFTER_ROLLING_BACK
    _save(fold_run, train_state, train_step)
    log.warning(
        "%s: %s at step %d: rolled back to step %d, goes on with %g of the learning rate",
        fold_run.name,
        fault,
        fault.step,
        train_state.step,
        train_state.rate_factor,
    )
    return train_state


def _finish(fold_run: FoldRun, train_step: TrainStep, train_state: TrainState) -> dict[str, Any]:
    """Writes the last weights and the fold's result; without validation cases the last weights are the best."""
    result = {
        "steps": train_state.step,
        "dice": train_state.dice,
        "best_step": train_state.best_step,
        "best_dice": train_state.best_dice,
        "validation_cases": list(fold_run.validation.cases),
        "rolled_back_at": train_state.rolled_back_at,
    }
    if fold_run.world.is_first:
        save_weights(fold_run.folder / LAST, train_step.validated_weights())
        if train_state.best_step is None:
            save_weights(fold_run.folder / BEST, train_step.validated_weights())
        write_json(fold_run.folder / RESULT, result)
        remove_train_state(fold_run.folder)
    fold_run.world.wait()
    log.info("%s: %d steps in %s", fold_run.name, train_state.step, duration(train_state.seconds))
    return result
