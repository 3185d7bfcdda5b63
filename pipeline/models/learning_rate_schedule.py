"""Learning-rate schedules: poly and cosine with warm-up, as functions of step / max_steps."""

from __future__ import annotations

import math

from pipeline.models.schedule_config import CosineConfig, PolyConfig


def learning_rate(schedule: PolyConfig | CosineConfig, lr: float, step: int, max_steps: int) -> float:
    """The rate at `step` (0 to max_steps - 1), a function of the step alone, so that resuming needs no scheduler."""
    warmup_steps = round(schedule.warmup * max_steps)
    if isinstance(schedule, CosineConfig):
        return cosine(lr, step, max_steps, warmup_steps, schedule.min_share * lr)
    return warmed_up(poly(lr, step, max_steps, schedule.power), step, warmup_steps)


def poly(lr: float, step: int, max_steps: int, power: float = 0.9) -> float:
    """lr · (1 - step / max_steps) ^ power, as in nnU-Net."""
    return lr * (1 - step / max_steps) ** power


def cosine(lr: float, step: int, max_steps: int, warmup_steps: int, min_lr: float) -> float:
    """Linear warm-up, then half a cosine from lr to min_lr, as in nanoGPT."""
    if step < warmup_steps:
        return warmed_up(lr, step, warmup_steps)
    progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (lr - min_lr)


def warmed_up(lr: float, step: int, warmup_steps: int) -> float:
    """The rate, scaled down linearly while step < warmup_steps."""
    return lr * (step + 1) / (warmup_steps + 1) if step < warmup_steps else lr
