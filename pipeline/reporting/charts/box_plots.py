"""Box and strip plots: how a metric is spread over the cases, structure by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.charts.svg_axes import Scale, coordinate, drawing, round_outwards, x_axis
from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag

WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1060.0, 160.0, 165.0, 22.0, 40.0
_RADIUS = 2.6
_MANY = 12
_REACH = 2.5


@dataclass(frozen=True)
class BoxStatistics:
    """Quartiles, and whiskers that reach to the furthest value within 1.5 interquartile ranges (Tukey)."""

    q1: float
    median: float
    q3: float
    low: float
    high: float


def box_statistics(values: NDArray[np.float64]) -> BoxStatistics:
    """The box of at least one defined value."""
    q1, median, q3 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    reach = 1.5 * (q3 - q1)
    inside = values[(values >= q1 - reach) & (values <= q3 + reach)]
    return BoxStatistics(q1, median, q3, float(inside.min()), float(inside.max()))


def box_strip(
    title: str,
    table: NDArray[np.float64],
    cases: Sequence[str],
    structures: Sequence[str],
    means: Mapping[str, Mapping[str, object]],
    bounded: bool,
    digits: int = 3,
) -> Html:
    """One row per structure: every case a point, a box below, the mean with its interval in the margin.

    table: (cases, structures), NaN undefined. means: structure to {"mean", "ci95"}. bounded: the metric ends at 1.
    Cases beyond the whiskers carry their name; those beyond the axis are drawn at its edge.
    """
    if np.isnan(table).all():
        return tag("p", f"{title}: no case has a defined value.", class_="muted")
    row_height = 54.0 if len(structures) <= _MANY else 30.0
    bottom = _TOP + row_height * len(structures)
    scale = _scale(table, bounded)
    rows = []
    for i, structure in enumerate(structures):
        known = np.flatnonzero(~np.isnan(table[:, i])).tolist()
        names = [cases[k] for k in known]
        y = _TOP + i * row_height
        rows.append(_row(scale, y, row_height, structure, table[known, i], names, means.get(structure, {}), digits))
    heading = tag("text", "mean [95 % interval]", class_="tick end", x=WIDTH, y=_TOP - 8)
    label = f"{title} of {len(cases)} cases, one row per structure"
    return drawing(WIDTH, bottom + _BOTTOM, label, x_axis(scale, _TOP, bottom, title), heading, rows)


def _scale(table: NDArray[np.float64], bounded: bool) -> Scale:
    """The axis from the perfect value to well beyond every whisker, so that a few cases do not flatten all others."""
    boxes = [box_statistics(column[~np.isnan(column)]) for column in table.T if not np.isnan(column).all()]
    start, end = _LEFT, WIDTH - _RIGHT
    if bounded:
        reach = max(_REACH * (1 - min(box.low for box in boxes)), 0.05)
        low, high = round_outwards(max(float(np.nanmin(table)), 1 - reach), 1.0)
        return Scale(max(low, 0.0), 1.0, start, end)
    reach = _REACH * max(box.high for box in boxes)
    low, high = round_outwards(0.0, min(float(np.nanmax(table)), reach) or 1.0)
    return Scale(low, high, start, end)


def _row(
    scale: Scale,
    y: float,
    height: float,
    structure: str,
    values: NDArray[np.float64],
    names: Sequence[str],
    mean: Mapping[str, object],
    digits: int,
) -> Html:
    middle = y + height / 2
    parts: list[object] = [
        tag("line", class_="rule", x1=0, x2=WIDTH, y1=coordinate(y), y2=coordinate(y)),
        tag("text", _short(structure), tag("title", structure), class_="name", x=0, y=coordinate(middle + 4)),
    ]
    if not len(values):
        parts.append(tag("text", "no defined value", class_="tick", x=scale.start + 8, y=coordinate(middle + 4)))
        return join(parts)
    box = box_statistics(values)
    points_y, box_y = y + height * 0.36, y + height * 0.76
    parts += [
        _points(scale, points_y, height * 0.26, values, names, box),
        _box(scale, box_y, height * 0.17, box),
        _mean(scale, box_y, mean),
        tag("text", _mean_text(mean, digits), class_="value end", x=WIDTH, y=coordinate(middle + 4)),
    ]
    return join(parts)


def _points(
    scale: Scale, y: float, half: float, values: NDArray[np.float64], names: Sequence[str], box: BoxStatistics
) -> Html:
    """Points inside the whiskers as one path (a few bytes each), those outside as marks with a name."""
    lifts = _swarm(np.array([scale(v) for v in values]), half)
    path, marks = [], []
    for value, lift, name in zip(values, lifts, names, strict=True):
        x, at = coordinate(scale(value)), coordinate(y + lift)
        if box.low <= value <= box.high:
            path.append(f"M{x} {at}h0")
            continue
        tip = tag("title", f"{name}: {number(float(value))}")
        if scale.low <= value <= scale.high:
            marks.append(tag("circle", tip, class_="outlier", cx=x, cy=at, r=3.2))
        else:
            marks.append(_arrow(scale(value), y + lift, 1 if value > scale.high else -1, tip))
    return join([tag("path", class_="points", d="".join(path)), *marks])


def _arrow(x: float, y: float, direction: int, tip: Html) -> Html:
    """A triangle at the edge of the axis for a value beyond it."""
    corners = [(x - 3 * direction, y - 4), (x + 5 * direction, y), (x - 3 * direction, y + 4)]
    return tag("polygon", tip, class_="outlier", points=_corners(corners))


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)


def _swarm(x: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Vertical offsets that keep neighbours apart: points of one bin are stacked up and down by turns."""
    bins = np.floor(x / (1.6 * _RADIUS)).astype(int)
    lifts = np.zeros(len(x))
    for place in np.unique(bins):
        members = np.flatnonzero(bins == place)
        ranks = np.arange(len(members))
        lifts[members] = np.where(ranks % 2 == 1, 1, -1) * ((ranks + 1) // 2) * 1.7 * _RADIUS
    largest = float(np.abs(lifts).max(initial=0.0))
    return lifts * min(1.0, half / largest) if largest > 0 else lifts


def _box(scale: Scale, y: float, half: float, box: BoxStatistics) -> Html:
    x1, x3 = scale(box.q1), scale(box.q3)
    median = coordinate(scale(box.median))
    top, height = coordinate(y - half), coordinate(2 * half)
    whiskers = tag("line", class_="whisker", x1=coordinate(scale(box.low)), x2=coordinate(scale(box.high)), y1=y, y2=y)
    body = tag("rect", class_="box", x=coordinate(x1), y=top, width=coordinate(max(x3 - x1, 1.0)), height=height, rx=2)
    line = tag("line", class_="median", x1=median, x2=median, y1=top, y2=coordinate(y + half))
    return join([whiskers, body, line])


def _mean(scale: Scale, y: float, mean: Mapping[str, object]) -> Html:
    value = mean.get("mean")
    if not isinstance(value, (int, float)):
        return Html("")
    x = scale(value)
    corners = [(x, y - 4.5), (x + 4.5, y), (x, y + 4.5), (x - 4.5, y)]
    return tag("polygon", class_="mean", points=_corners(corners))


def _mean_text(mean: Mapping[str, object], digits: int) -> str:
    value, interval = mean.get("mean"), mean.get("ci95")
    if not isinstance(value, (int, float)):
        return "–"
    between = ""
    if isinstance(interval, (list, tuple)) and None not in interval:
        between = f" [{number(interval[0], digits)}, {number(interval[1], digits)}]"
    return number(value, digits) + between


def _short(name: str, most: int = 21) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
