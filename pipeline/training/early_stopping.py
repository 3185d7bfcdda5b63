"""Early stopping and the best weights, by the mean Dice of validation."""

from __future__ import annotations

from pipeline.models.checkpoint import save_weights
from pipeline.training.fold_run import BEST, FoldRun
from pipeline.training.save_and_resume import (
    TrainState,
)
from pipeline.training.train_step import TrainStep


def keep_best(fold_run: FoldRun, train_step: TrainStep, train_state: TrainState) -> None:
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


def should_stop_early(fold_run: FoldRun, train_state: TrainState) -> bool:
    return fold_run.early_stopping is not None and train_state.since_better >= fold_run.early_stopping.patience
