"""How much of a budget validation takes: the share that it may have, or what pinned intervals and cases make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from pipeline.config.plan import StepCostConfig
from pipeline.inference.sliding_window import window_grid
from pipeline.io.geometry import Shape

# A window goes forward only: a third of a patch that is learned from.
PATCHES_PER_WINDOW = 1 / 3


@dataclass(frozen=True)
class ValidationCost:
    """What is pinned of validation (`train.validation`), and the shapes of the cases on the planned grid."""

    share: float = 0.05
    interval: int | None = None
    cases: int | None = None
    overlap: float = 0.5
    shapes: Sequence[Shape] = ()

    @classmethod
    def of(cls, pace: StepCostConfig, shapes: Sequence[Shape]) -> ValidationCost:
        """What the config pins, for cases of these shapes."""
        return cls(
            pace.validation_share, pace.validation_interval, pace.validation_cases, pace.validation_overlap, shapes
        )

    def share_of_steps(self, patch_size: Shape, patches_per_step: int) -> float:
        """Its time over that of the steps. Which cases a fold validates is not known yet: the mean case stands for all.

        With an open interval, training keeps to `share`. With a pinned one it takes what it takes, at least one case.
        """
        if self.interval is None:
            return self.share
        windows = mean(window_grid(shape, patch_size, self.overlap).count for shape in self.shapes)
        each = min(self.cases or 1, len(self.shapes)) * windows * PATCHES_PER_WINDOW
        pinned = each / (self.interval * patches_per_step)
        return pinned if self.cases else max(self.share, pinned)
