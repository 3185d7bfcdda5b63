"""What training one fold consists of: its batches, learning rate, validation and files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.prefetch import Batch
from pipeline.training.validation_schedule import ValidationPlan

if TYPE_CHECKING:
    from pipeline.config.train import EarlyStoppingConfig
    from pipeline.training.loggers.tensorboard_images import ValidationImage

LAST, BEST, RESULT = "last.safetensors", "best.safetensors", "result.json"
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
