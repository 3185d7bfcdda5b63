"""The training loop of one fold, and its manners: save, resume, roll back, stop when asked.

The state on disk is all that is needed to go on exactly: batches, learning rate and random numbers are functions of the
step. Rolling back after a loss that is not a number is resuming with a lower rate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.base.errors import TrainingError
from pipeline.base.files import write_json
from pipeline.base.stage import duration
from pipeline.base.terminal import progress
from pipeline.models.checkpoint import save_weights
from pipeline.training.batches import Batch, drawn_ahead
from pipeline.training.distributed import ALONE, World
from pipeline.training.journal import Journal
from pipeline.training.learner import Learner
from pipeline.training.signals import asked_to_stop
from pipeline.training.standing import NotFiniteError, Standing, has_state, load_standing, remove_state, save_standing
from pipeline.training.validation import ValidationPlan

if TYPE_CHECKING:
    from pipeline.training.pictures import Picture
    from pipeline.training.settings import EarlyStoppingConfig

log = logging.getLogger(__name__)

LAST, BEST, RESULT = "last.safetensors", "best.safetensors", "result.json"
_RATE_AFTER_ROLLING_BACK = 0.5
_MEET_EVERY = 20


@dataclass(frozen=True)
class Course:
    """What training one fold consists of, apart from what learns.

    draw: step to batch. rate: step to learning rate. validate: weights to mean Dice per structure. pictures: of the
    last validation, by case.
    """

    name: str
    folder: Path
    structures: tuple[str, ...]
    seed: int
    max_steps: int
    batch_size: int
    draw: Callable[[int], Batch]
    rate: Callable[[int], float]
    validate: Callable[[Mapping[str, torch.Tensor]], dict[str, float]]
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
    while True:
        try:
            _train(course, learner, standing)
            return _finish(course, learner, standing)
        except NotFiniteError as fault:
            standing = _roll_back(course, learner, fault)


def _train(course: Course, learner: Learner, standing: Standing) -> None:
    world, saved_at = course.world, time.monotonic()
    if _patience_is_over(course, standing):  # stopped between the last validation and the end
        return
    with (
        Journal(course, standing, learner.device) as journal,
        drawn_ahead(course.draw, standing.step, course.max_steps, course.data_threads) as batches,
        asked_to_stop() as asked,
        progress(course.name, course.max_steps, standing.step) as bar,
    ):
        for step in range(standing.step, course.max_steps):
            lr = course.rate(step) * standing.rate_factor
            with journal.times("data"):
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
            save = meet and world.any(
                validate or stop or time.monotonic() - saved_at > course.save_every, learner.device
            )
            with journal.times("step"):  # on a GPU this waits for the steps
                look = meet and (row or save or learner.device.type == "cpu")
                journal.take_in(loss, norm, look=look, scaled=learner.scaled)
            if validate:
                with journal.times("validation"):
                    dice = course.validate(learner.validated_weights())
                    standing.dice = world.as_first(dice, course.structures, learner.device)
                    journal.show(course.pictures())
                journal.look_at_the_clock()
                _note_best(course, learner, standing)
                log.info("%s", journal.line())
            if row:
                journal.write_row(lr, validated=validate)
            if save:
                _save(course, standing, learner)
                saved_at = time.monotonic()
            bar.advance(1, journal.note())
            if stop:
                log.info("stopped at step %d of %d, saved", standing.step, course.max_steps)
                raise KeyboardInterrupt
            if _patience_is_over(course, standing):
                log.info("stopped early: no better validation since step %s", standing.best_step)
                return


def _begin_or_resume(course: Course, learner: Learner) -> Standing:
    resumes = has_state(course.folder)
    course.world.wait()
    if not resumes:
        _save(course, Standing(), learner)
        return Standing()
    standing = load_standing(course.folder, learner)
    log.info("%s: resumed at step %d", course.name, standing.step)
    return standing


def _save(course: Course, standing: Standing, learner: Learner) -> None:
    if course.world.is_first:
        save_standing(course.folder, standing, learner)
    course.world.wait()


def _note_best(course: Course, learner: Learner, standing: Standing) -> None:
    """Keeps the weights if the mean Dice over structures is the best so far."""
    least_gain = course.early_stopping.min_delta if course.early_stopping else 0.0
    standing.since_better = 0 if standing.mean_dice > standing.best_mean + least_gain else standing.since_better + 1
    if standing.mean_dice > standing.best_mean:
        standing.best_mean, standing.best_step, standing.best_dice = standing.mean_dice, standing.step, standing.dice
        if course.world.is_first:
            save_weights(course.folder / BEST, learner.validated_weights())


def _patience_is_over(course: Course, standing: Standing) -> bool:
    return course.early_stopping is not None and standing.since_better >= course.early_stopping.patience


def _roll_back(course: Course, learner: Learner, fault: NotFiniteError) -> Standing:
    """The last good state with a lower rate; the second time, the end."""
    standing = load_standing(course.folder, learner)
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
