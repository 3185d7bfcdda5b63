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
from pipeline.training.distributed import ALONE, World
from pipeline.training.prefetch import Batch, drawn_ahead
from pipeline.training.stop_signals import asked_to_stop
from pipeline.training.train_logger import Journal
from pipeline.training.train_state import (
    NotFiniteError,
    Standing,
    has_state,
    load_standing,
    remove_state,
    save_standing,
    seconds_between_saves,
)
from pipeline.training.train_step import Learner
from pipeline.training.validation import ValidationPlan

if TYPE_CHECKING:
    from pipeline.config.train import EarlyStoppingConfig
    from pipeline.training.tensorboard_images import Picture

log = logging.getLogger(__name__)

LAST, BEST, RESULT = "last.safetensors", "best.safetensors", "result.json"
_RATE_AFTER_ROLLING_BACK = 0.5
_MEET_EVERY = 20
_WORTH_SAVING_S = 5.0
"""Training since the last save that a validation, which may take minutes, is not begun with: a kill would cost it."""

Validate = Callable[[Mapping[str, torch.Tensor], int, Callable[[], None]], dict[str, float]]
"""Weights, the number of windows at once, and what is called before each case, to mean Dice per structure."""


@dataclass(frozen=True)
class Course:
    """What training one fold consists of, apart from what learns.

    draw: step to batch. rate: step to learning rate. pictures: of the last validation, by case.
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
    pictures: Callable[[], Mapping[str, Picture]] = dict
    early_stopping: EarlyStoppingConfig | None = None
    data_threads: int = 1
    save_every: float = 30.0
    tensorboard: bool = True
    mlflow: str | None = None
    world: World = ALONE

    def row_due(self, step: int) -> bool:
        """Whether a row of metrics.csv follows step number `step`: about 200 rows in all."""
        return step % max(self.max_steps // 200, 1) == 0 or step == self.max_steps


def fit(course: Course, learner: Learner) -> dict[str, Any]:
    """Trains to the end, from the state in the fold's folder if there is one, and returns `result.json`'s content.

    Leaves last and best weights, metrics and timing. Raises TrainingError where the loss is not a number twice, and
    KeyboardInterrupt after SIGTERM or SIGINT; both leave a state to go on from.
    """
    standing = _begin_or_resume(course, learner)
    with asked_to_stop() as asked:
        while True:
            try:
                _train(course, learner, standing, asked)
                return _finish(course, learner, standing)
            except NotFiniteError as fault:
                standing = _roll_back(course, learner, fault, standing.seconds)


def _train(course: Course, learner: Learner, standing: Standing, asked: threading.Event) -> None:
    world, saves = course.world, _Saves(course, learner, standing)
    with (
        Journal(course, standing, learner.device) as journal,
        drawn_ahead(course.draw, standing.step, course.max_steps, course.data_threads) as batches,
        progress(course.name, course.max_steps, standing.step, shown=world.is_first) as bar,
    ):
        if standing.validation_due:
            _validate(course, learner, standing, journal, saves, asked)
        for step in range(standing.step, course.max_steps):
            if _patience_is_over(course, standing):
                log.info("stopped early: no better validation since step %s", standing.best_step)
                return
            lr = course.rate(step) * standing.rate_factor
            with journal.times("data"), _or_said(course, "drawing a batch", learner.device.type != "cpu"):
                batch = next(batches)
            with journal.times("step"):
                torch.manual_seed((course.seed * 1_000_003 + step) * world.size + world.rank)
                loss, norm = learner.learn(batch, step, lr)
            standing.step = step + 1

            validate = course.validation.due(standing.step, course.max_steps)
            row = validate or course.row_due(standing.step)
            # Several processes can only decide together, and meet now and then; one decides at any step.
            meet = row or world.size == 1 or standing.step % _MEET_EVERY == 0
            stop = meet and world.any(asked.is_set(), learner.device)
            save = meet and world.any(stop or saves.due, learner.device)
            with journal.times("step"):  # on a GPU this waits for the steps
                look = meet and (row or save or learner.device.type == "cpu")
                journal.take_in(loss, norm, look=look, scaled=learner.scaled)
            if validate:
                _validate(course, learner, standing, journal, saves, asked)
            elif row:
                journal.write_row(lr, validated=False)
            if stop:
                _stop(course, standing, saves)
            if save and not validate:
                saves.save()
            bar.advance(1, journal.note())
            journal.say_now_and_then()


def _validate(
    course: Course, learner: Learner, standing: Standing, journal: Journal, saves: _Saves, asked: threading.Event
) -> None:
    """Scores the weights after `standing.step`, writes the row and saves.

    It can take minutes. Where it is killed or stopped in them, the saved state says that it is due, and going on begins
    with it.
    """

    def stop_if_asked() -> None:
        if course.world.any(asked.is_set(), learner.device):
            journal.look_at_the_clock()
            _stop(course, standing, saves)

    standing.validation_due = True
    if course.world.any(saves.age > _WORTH_SAVING_S, learner.device):
        saves.save()
    with journal.times("validation"), _or_said(course, "a validation", learner.device.type != "cpu"):
        dice = course.validate(learner.validated_weights(), learner.micro_batch, stop_if_asked)
        standing.dice = course.world.as_first(dice, course.structures, learner.device)
        journal.show(course.pictures())
    standing.validation_due = False
    journal.look_at_the_clock()
    _note_best(course, learner, standing)
    journal.say()
    journal.write_row(course.rate(standing.step - 1) * standing.rate_factor, validated=True)
    saves.save()
    stop_if_asked()  # in its last case: nothing else may come that looks


def _stop(course: Course, standing: Standing, saves: _Saves) -> NoReturn:
    saves.save()
    log.info("stopped at step %d of %d, saved", standing.step, course.max_steps)
    raise KeyboardInterrupt


@contextmanager
def _or_said(course: Course, what: str, on_gpu: bool) -> Iterator[None]:
    """Makes a want of memory in `what`, which cannot be done in smaller portions, a TrainingError with its cure."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        elsewhere = "ram, which leaves a GPU's memory to training" if on_gpu else "disk, which holds no scan in memory"
        raise TrainingError(
            f"{course.name}: not enough memory for {what} ({str(error).splitlines()[0]}). End what else uses it, and "
            "the same command goes on from the last save; or use a smaller plan.patch_size or plan.batch_size, or "
            f"sample.store: {elsewhere}"
        ) from error


def _begin_or_resume(course: Course, learner: Learner) -> Standing:
    resumes = has_state(course.folder)
    course.world.wait()
    if not resumes:
        standing = Standing(processes=course.world.size)
        _save(course, standing, learner)
        return standing
    standing = load_standing(course.folder, learner)
    if standing.processes != course.world.size:
        begun, now = (f"{n} process{'es' if n > 1 else ''}" for n in (standing.processes, course.world.size))
        how = "with torchrun" if standing.processes > 1 else "without torchrun"
        raise ConfigError(
            f"{course.name} was begun with {begun} and cannot go on with {now}: its batches would be others, and its "
            f"weights those of neither run. Start it with {begun} ({how}), or begin anew with --force"
        )
    log.info("%s: resumed at step %d", course.name, standing.step)
    return standing


class _Saves:
    """When the state was saved last, and when it is to be saved again."""

    def __init__(self, course: Course, learner: Learner, standing: Standing) -> None:
        self.course, self.learner, self.standing = course, learner, standing
        self.at, self.took = time.monotonic(), 0.0

    @property
    def age(self) -> float:
        return time.monotonic() - self.at

    @property
    def due(self) -> bool:
        return self.age > seconds_between_saves(self.course.save_every, self.took)

    def save(self) -> None:
        began = time.monotonic()
        _save(self.course, self.standing, self.learner)
        self.at = time.monotonic()
        self.took = self.at - began


def _save(course: Course, standing: Standing, learner: Learner) -> None:
    if course.world.is_first:
        save_standing(course.folder, standing, learner)
    course.world.wait()


def _note_best(course: Course, learner: Learner, standing: Standing) -> None:
    """Keeps the weights if the mean Dice over structures is the best so far, and counts validations without a gain."""
    least_gain = course.early_stopping.min_delta if course.early_stopping else 0.0
    standing.since_better += 1
    if standing.mean_dice > standing.mean_to_beat + least_gain:  # small gains add up until they are one
        standing.since_better, standing.mean_to_beat = 0, standing.mean_dice
    if standing.mean_dice > standing.best_mean:
        standing.best_mean, standing.best_step, standing.best_dice = standing.mean_dice, standing.step, standing.dice
        if course.world.is_first:
            save_weights(course.folder / BEST, learner.validated_weights())


def _patience_is_over(course: Course, standing: Standing) -> bool:
    return course.early_stopping is not None and standing.since_better >= course.early_stopping.patience


def _roll_back(course: Course, learner: Learner, fault: NotFiniteError, seconds: float) -> Standing:
    """The last good state with a lower rate, and with the time that was spent; the second time, the end."""
    standing = load_standing(course.folder, learner)
    standing.seconds = seconds
    course.world.wait()
    if standing.rolled_back_at is not None:
        if course.world.is_first:
            save_weights(course.folder / LAST, learner.validated_weights())
        raise TrainingError(
            f"{course.name}: {fault} again at step {fault.step}, after rolling back from step "
            f"{standing.rolled_back_at} to a lower learning rate; the weights of step {standing.step} are in "
            f"{course.folder / LAST}. Use a lower train.optimizer.lr, train.grad_clip or fp32 (plan.precision), and "
            "look for extreme intensities with `segpipe check`"
        )
    standing.rolled_back_at = fault.step
    standing.rate_factor *= _RATE_AFTER_ROLLING_BACK
    _save(course, standing, learner)
    log.warning(
        "%s: %s at step %d: rolled back to step %d, goes on with %g of the learning rate",
        course.name,
        fault,
        fault.step,
        standing.step,
        standing.rate_factor,
    )
    return standing


def _finish(course: Course, learner: Learner, standing: Standing) -> dict[str, Any]:
    """Writes the last weights and the fold's result; without validation cases the last weights are the best."""
    result = {
        "steps": standing.step,
        "dice": standing.dice,
        "best_step": standing.best_step,
        "best_dice": standing.best_dice,
        "validation_cases": list(course.validation.cases),
        "rolled_back_at": standing.rolled_back_at,
    }
    if course.world.is_first:
        save_weights(course.folder / LAST, learner.validated_weights())
        if standing.best_step is None:
            save_weights(course.folder / BEST, learner.validated_weights())
        write_json(course.folder / RESULT, result)
        remove_state(course.folder)
    course.world.wait()
    log.info("%s: %d steps in %s", course.name, standing.step, duration(standing.seconds))
    return result
