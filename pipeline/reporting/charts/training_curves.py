"""Training curves: loss, validation Dice and learning rate over the steps of each fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.reporting.charts.svg_axes import Scale, coordinate, drawing, round_outwards, x_axis, y_axis
from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.read_training_metrics import Fold, Series

_WIDTH, _HEIGHT = 340.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 34.0, 44.0
_COLOURS = 8
_MOST_LINES = 8


def loss_curves(folds: Sequence[Fold]) -> Html:
    """The training loss of every fold."""
    lines = {f"fold {fold.name}": fold.metrics.get("loss", []) for fold in folds}
    return _plot("training loss", "training loss", lines, {})


def dice_curves(folds: Sequence[Fold]) -> Html:
    """Validation Dice: the mean of every fold; for a single fold each structure too, while they are few."""
    if len(folds) > 1:
        lines = {f"fold {fold.name}": _dice(fold, "mean") for fold in folds}
    else:
        names = [key.removeprefix("dice_") for key in folds[0].metrics if key.startswith("dice_")]
        shown = names if len(names) <= _MOST_LINES else ["mean"]
        lines = {name: _dice(folds[0], name) for name in shown}
    best = {fold.name: fold.best_step for fold in folds if fold.best_step is not None}
    return _plot("validation Dice", "Dice on validation cases during training", lines, best)


def rate_curves(folds: Sequence[Fold]) -> Html:
    """The learning rate."""
    return _plot(
        "learning rate", "learning rate", {f"fold {fold.name}": fold.metrics.get("lr", []) for fold in folds}, {}
    )


def time_shares(folds: Sequence[Fold]) -> list[tuple[str, float]]:
    """Where training's time went, in seconds: (what, seconds), from the last row of every fold's timing."""
    names = {"data_s": "waiting for data", "step_s": "steps", "validation_s": "validation"}
    shares = []
    for column, title in names.items():
        values = [sum(value for _, value in fold.timing[column]) for fold in folds if fold.timing.get(column)]
        if values:
            shares.append((title, sum(values)))
    return shares


def _dice(fold: Fold, structure: str) -> Series:
    return fold.metrics.get(f"dice_{structure}", [])


def _plot(title: str, label: str, lines: Mapping[str, Series], best: Mapping[str, int]) -> Html:
    lines = {name: series for name, series in lines.items() if series}
    if not lines:
        return Html("")
    points = [point for series in lines.values() for point in series]
    x = Scale(0.0, max(max(step for step, _ in points), 1.0), _LEFT, _WIDTH - _RIGHT)
    values = [value for _, value in points]
    y = Scale(*round_outwards(min(values), max(values)), _HEIGHT - _BOTTOM, _TOP)
    parts = [x_axis(x, _TOP, _HEIGHT - _BOTTOM, "step", about=4), y_axis(y, _LEFT, _WIDTH - _RIGHT, title)]
    for step in sorted(set(best.values())):
        at = coordinate(x(step))
        parts.append(
            tag(
                "line",
                tag("title", f"best validation at step {step}"),
                class_="best",
                x1=at,
                x2=at,
                y1=_TOP,
                y2=y.start,
            )
        )
    for i, series in enumerate(lines.values()):
        parts.append(tag("path", class_=f"curve c{i % _COLOURS}", d=_path(series, x, y)))
        if len(series) == 1:
            parts.append(tag("circle", class_=f"dot c{i % _COLOURS}", cx=x(series[0][0]), cy=y(series[0][1]), r=3))
    picture = drawing(_WIDTH, _HEIGHT, f"{label}, {len(lines)} line(s)", parts)
    return tag("figure", picture, _legend(lines), class_="third")


def _path(series: Series, x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{coordinate(x(step))} {coordinate(y(value))}" for step, value in series)


def _legend(lines: Mapping[str, Series]) -> Html:
    items = [
        tag("span", tag("i", class_=f"c{i % _COLOURS}"), f"{name}: {_last(series[-1][1])}")
        for i, (name, series) in enumerate(lines.items())
    ]
    return tag("figcaption", join(items, " "), " (at the last step)", class_="legend")


def _last(value: float) -> str:
    """As other numbers; a learning rate has three digits however small it is."""
    return number(value) if value == 0 or abs(value) >= 0.001 else f"{value:.2g}"
