"""When validation takes place and on which cases: as much as its share of the time allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.inference.sliding_window import window_grid


@dataclass(frozen=True)
class ValidationPlan:
    """When and on which cases: after every `interval` steps and after the last one. overlap: of its windows."""

    interval: int
    cases: tuple[str, ...]
    overlap: float = 0.5

    def due(self, step: int, max_steps: int) -> bool:
        """Whether validation follows step number `step` (counted from 1)."""
        return bool(self.cases) and (step % self.interval == 0 or step == max_steps)


def plan_validation(
    shapes: Mapping[str, Sequence[int]],
    patch_size: Sequence[int],
    batch_size: int,
    max_steps: int,
    share: float,
    overlap: float,
    interval: int | None,
    cases: int | None,
    most: int = 20,
) -> ValidationPlan:
    """Chooses cases and interval so that validation takes about `share` of the training's work.

    shapes: of the fold's validation cases. One window costs a third of a training patch (forward only). Half of what
    is allowed bounds the number of cases (at least 2, or 1 where not even they are allowed), the rest the number of
    validations (1 to `most`). With a pinned interval all validations share what is allowed, one case each at least.
    Where one case alone would take more, its windows do not overlap.
    """
    if not shapes:
        return ValidationPlan(max_steps, (), overlap)
    allowed = 3 * share * batch_size * max_steps
    windows = _windows(shapes, patch_size, overlap)
    if cases is None and min(windows.values()) > allowed:
        overlap = 0.0
        windows = _windows(shapes, patch_size, overlap)
    mean_windows = sum(windows.values()) / len(windows)
    fewest = 2 if 2 * mean_windows <= allowed and interval is None else 1
    parts = 2 if interval is None else math.ceil(max_steps / interval)
    number = min(cases or max(math.floor(allowed / parts / mean_windows), fewest), len(windows))
    names = list(windows)
    picked = tuple(names[i * len(names) // number] for i in range(number))
    if number == 1 and cases is None:
        picked = (min(names, key=windows.__getitem__),)
    rounds = max(min(math.floor(allowed / sum(windows[case] for case in picked)), most), 1)
    return ValidationPlan(interval or math.ceil(max_steps / rounds), picked, overlap)


def _windows(shapes: Mapping[str, Sequence[int]], patch_size: Sequence[int], overlap: float) -> dict[str, int]:
    return {case: window_grid(shape, patch_size, overlap).count for case, shape in sorted(shapes.items())}
