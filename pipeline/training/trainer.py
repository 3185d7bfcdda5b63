"""The training loop of one fold.

The state on disk is all that is needed to go on exactly: batches, learning rate and random numbers are functions of the
step. Rolling back after a loss that is not a number is resuming with a lower rate.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from pipeline.base.errors import TrainingError
from pipeline.base.files import write_json
from pipeline.base.machine import is_out_of_memory
from pipeline.base.terminal import format_duration, progress
from pipeline.models.checkpoint import save_weights
from pipeline.training.early_stopping import keep_best, should_stop_early
from pipeline.training.fold_run import BEST, LAST, RESULT, FoldRun
from pipeline.training.loggers.train_logger import TrainLogger
from pipeline.training.prefetch import prefetch
from pipeline.training.roll_back_after_nan import NotFiniteError, roll_back
from pipeline.training.save_and_resume import (
    CheckpointTimer,
    TrainState,
    remove_train_state,
    start_or_resume,
)
from pipeline.training.stop_signals import stop_requested
from pipeline.training.train_step import TrainStep

log = logging.getLogger(__name__)

_MEET_EVERY = 20


def fit(fold_run: FoldRun, train_step: TrainStep) -> dict[str, Any]:
    """Trains to the end, from the state in the fold's folder if there is one, and returns `result.json`'s content.

    Leaves last and best weights, metrics and timing. Raises TrainingError where the loss is not a number twice, and
    KeyboardInterrupt after SIGTERM or SIGINT; both leave a state to go on from.
    """
    train_state = start_or_resume(fold_run, train_step)
    with stop_requested() as asked:
        while True:
            try:
                _train(fold_run, train_step, train_state, asked)
                return _finish(fold_run, train_step, train_state)
            except NotFiniteError as fault:
                train_state = roll_back(fold_run, train_step, fault, train_state.seconds)


def _train(fold_run: FoldRun, train_step: TrainStep, train_state: TrainState, asked: threading.Event) -> None:
    world, checkpoints = fold_run.world, CheckpointTimer(fold_run, train_step, train_state)
    with (
        TrainLogger(fold_run, train_state, train_step.device) as logger,
        prefetch(fold_run.draw, train_state.step, fold_run.max_steps, fold_run.data_threads) as batches,
        progress(fold_run.name, fold_run.max_steps, train_state.step, shown=world.is_first) as bar,
    ):
        if train_state.validation_due:
            _validate(fold_run, train_step, train_state, logger, checkpoints, asked)
        for step in range(train_state.step, fold_run.max_steps):
            if should_stop_early(fold_run, train_state):
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
    checkpoints: CheckpointTimer,
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
    keep_best(fold_run, train_step, train_state)
    logger.log_progress()
    logger.write_row(fold_run.rate(train_state.step - 1) * train_state.rate_factor, validated=True)
    checkpoints.save()
    stop_if_asked()  # in its last case: nothing else may come that looks


def _stop(fold_run: FoldRun, train_state: TrainState, checkpoints: CheckpointTimer) -> NoReturn:
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
    log.info("%s: %d steps in %s", fold_run.name, train_state.step, format_duration(train_state.seconds))
    return result
