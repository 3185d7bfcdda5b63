"""The figure of `segpipe compare`: paired differences of Dice, one row a structure, one panel a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import atomic_write
from pipeline.evaluation.compare import MEAN
from pipeline.evaluation.read_scores import Scores

_POINT, _INTERVAL, _ZERO, _KEY = "#7aa0c4", "#1b2a41", "#b04a3a", "#59636e"


@dataclass(frozen=True)
class Differences:
    """One row: every case's difference, their mean, and its interval where there is one."""

    values: NDArray[np.float64]
    mean: float | None
    low: float | None
    high: float | None


def draw_comparison(
    baseline: Scores, others: Sequence[Scores], comparisons: Sequence[dict[str, Any]], path: Path
) -> None:
    """Draw the paired differences of Dice of every method against the baseline."""
    panels = []
    for other, comparison in zip(others, comparisons, strict=True):
        names = [name for name, metrics in comparison["structures"].items() if "dice" in metrics and name != MEAN]
        rows = {}
        for name in names:
            values = other.column(name, "dice", baseline.cases) - baseline.column(name, "dice", baseline.cases)
            entry = comparison["structures"][name]["dice"]["difference"]
            rows[name] = Differences(values[~np.isnan(values)], entry["mean"], *entry["ci95"])
        panels.append((other.name, rows))
    draw_differences(panels, baseline.name, path)


def draw_differences(panels: Sequence[tuple[str, Mapping[str, Differences]]], baseline: str, path: Path) -> None:
    """Writes a PNG: points are cases, the diamond is their mean with its 95 % interval; right of zero is better."""
    from matplotlib.figure import Figure

    most_rows = max(len(rows) for _, rows in panels)
    height = 1.7 + 0.55 * most_rows
    figure = Figure(figsize=(2.0 + 4.6 * len(panels), height), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for panel, (method, rows) in zip(axes, panels, strict=True):
        for position, row in enumerate(rows.values()):
            _draw_row(panel, position, row)
        panel.axvline(0, color=_ZERO, linewidth=1)
        panel.set_yticks(range(len(rows)), list(rows))
        panel.set_ylim(len(rows) - 0.5, -0.5)
        cases = max((len(row.values) for row in rows.values()), default=0)
        panel.set_title(f"{method}, {cases} cases", fontsize=10)
        panel.set_xlabel(f"Dice minus Dice of {baseline}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    key = "point: a case · diamond: mean with its 95 % interval · right of 0: better"
    figure.supxlabel(key, fontsize=8, color=_KEY)
    atomic_write(path, lambda temporary: figure.savefig(temporary, format="png"))


def _draw_row(panel, position: int, row: Differences) -> None:  # type: ignore[no-untyped-def]  # matplotlib's Axes
    """Cases spread over the row by a fixed golden-ratio sequence, so that the figure is the same every time."""
    spread = (np.arange(len(row.values)) * 0.6180339887 % 1 - 0.5) * 0.5
    panel.plot(row.values, position + spread, ".", color=_POINT, markersize=6, alpha=0.8, markeredgewidth=0)
    if row.low is not None and row.high is not None:
        panel.plot([row.low, row.high], [position, position], color=_INTERVAL, linewidth=2.2, solid_capstyle="butt")
    if row.mean is not None:
        panel.plot(row.mean, position, "D", color=_INTERVAL, markersize=5, markeredgecolor="white", markeredgewidth=0.8)
