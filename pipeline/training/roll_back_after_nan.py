"""Rolling back to the last saved state, with a lower learning rate, after a loss that is not a number."""

from __future__ import annotations

import logging

from pipeline.base.errors import TrainingError
from pipeline.models.checkpoint import save_weights
from pipeline.training.fold_run import LAST, FoldRun
from pipeline.training.save_and_resume import (
    TrainState,
    load_train_state,
    save_checkpoint,
)
from pipeline.training.train_step import TrainStep

log = logging.getLogger(__name__)

_RATE_AFTER_ROLLING_BACK = 0.5


def roll_back(fold_run: FoldRun, train_step: TrainStep, fault: NotFiniteError, seconds: float) -> TrainState:
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
    save_checkpoint(fold_run, train_state, train_step)
    log.warning(
        "%s: %s at step %d: rolled back to step %d, goes on with %g of the learning rate",
        fold_run.name,
        fault,
        fault.step,
        train_state.step,
        train_state.rate_factor,
    )
    return train_state


class NotFiniteError(Exception):
    """Loss or gradient of step number `step` is not a finite number."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"the {what} is not a finite number")
        self.step = step
