"""Saving and resuming of training: its state on disk, with everything that exact resuming needs, as plain data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import atomic_write
from pipeline.training.fold_run import FoldRun
from pipeline.training.train_step import TrainStep

log = logging.getLogger(__name__)

_STATE = "state.pt"
# A save that is slower than this is given time to pay for itself, as long as a kill costs no more than a minute.
_SLOW_SAVE_S, _TIMES_ITS_TIME, _LONGEST_S = 0.5, 20, 60.0


@dataclass
class TrainState:
    """Everything that changes while training, but for the learner's own state.

    seconds: spent so far, over all resumes. processes: how many take part. losses, norms: of the steps since the last
    row of metrics.csv. validation_due: the one after this step is not done yet. dice: of the last validation, per
    structure. mean_to_beat: the mean Dice of `since_better` validations ago, from which early stopping counts a gain.
    """

    step: int = 0
    seconds: float = 0.0
    processes: int = 1
    rate_factor: float = 1.0
    rolled_back_at: int | None = None
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    validation_due: bool = False
    dice: dict[str, float] = field(default_factory=dict)
    best_dice: dict[str, float] = field(default_factory=dict)
    best_mean: float = -1.0
    best_step: int | None = None
    mean_to_beat: float = -1.0
    since_better: int = 0

    @property
    def mean_dice(self) -> float:
        """The mean over structures of the last validation; 0 where no case held any."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else 0.0


def seconds_between_saves(wanted: float, last_took: float) -> float:
    """`wanted`, or 20 times what the last save took where that was long, up to a minute."""
    return wanted if last_took < _SLOW_SAVE_S else max(wanted, min(_TIMES_ITS_TIME * last_took, _LONGEST_S))


def has_train_state(folder: Path) -> bool:
    """Whether an unfinished training lies in the folder."""
    return (folder / _STATE).is_file()


def save_train_state(folder: Path, train_state: TrainState, train_step: TrainStep) -> None:
    """Saves all that is needed to go on; a kill leaves either the old or the new state."""
    save_state(folder / _STATE, {"standing": asdict(train_state), "learner": train_step.state()})


def load_train_state(folder: Path, train_step: TrainStep) -> TrainState:
    """Brings learner and standing back to what was saved."""
    state = load_state(folder / _STATE, train_step.device)
    train_step.load_state(state["learner"])
    return TrainState(**state["standing"])


def remove_train_state(folder: Path) -> None:
    """A finished training needs no state."""
    (folder / _STATE).unlink(missing_ok=True)


def start_or_resume(fold_run: FoldRun, train_step: TrainStep) -> TrainState:
    resumes = has_train_state(fold_run.folder)
    fold_run.world.wait()
    if not resumes:
        train_state = TrainState(processes=fold_run.world.size)
        save_checkpoint(fold_run, train_state, train_step)
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


class CheckpointTimer:
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
        save_checkpoint(self.fold_run, self.train_state, self.train_step)
        self.at = self.fold_run.clock()
        self.took = self.at - began


def save_checkpoint(fold_run: FoldRun, train_state: TrainState, train_step: TrainStep) -> None:
    if fold_run.world.is_first:
        save_train_state(fold_run.folder, train_state, train_step)
    fold_run.world.wait()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state of tensors, numbers, strings, lists and dicts, atomically."""
    atomic_write(path, lambda temporary: torch.save(dict(state), temporary))


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads what `save_state` wrote, refusing anything but plain data."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: the saved training state cannot be read ({error}); begin again with --force"
        ) from None
