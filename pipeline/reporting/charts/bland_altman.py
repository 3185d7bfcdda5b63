"""Bland-Altman plots: how far predicted volumes lie from reference volumes, against their size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.charts.svg_axes import Scale, coordinate, drawing, round_outwards, x_axis, y_axis
from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag

_WIDTH, _HEIGHT = 370.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 62.0, 44.0, 44.0
_NORMAL_95 = 1.96


def bland_altman(
    structure: str, reference_ml: NDArray[np.float64], predicted_ml: NDArray[np.float64], cases: Sequence[str]
) -> Html:
    """Difference (prediction − reference) over mean volume with bias and 95 % limits of agreement (± 1.96 SD).

    Bland and Altman, Lancet 1986. Arrays have one volume in ml a case, NaN where undefined. Cases outside the limits
    carry their name. With fewer than two cases there are no limits. Cases that have the structure on neither side say
    nothing about the agreement of volumes, and would narrow the limits: they are left out.
    """
    known = ~(np.isnan(reference_ml) | np.isnan(predicted_ml)) & ((reference_ml > 0) | (predicted_ml > 0))
    names = [case for case, keep in zip(cases, known, strict=True) if keep]
    mean, difference = (reference_ml + predicted_ml)[known] / 2, (predicted_ml - reference_ml)[known]
    if len(mean) < 2:
        return tag("p", f"{structure}: fewer than two cases, so no limits of agreement.", class_="muted")
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    limits = bias - _NORMAL_95 * spread, bias + _NORMAL_95 * spread
    x = Scale(*round_outwards(float(mean.min()), float(mean.max())), _LEFT, _WIDTH - _RIGHT)
    lowest, highest = min(float(difference.min()), limits[0], 0.0), max(float(difference.max()), limits[1], 0.0)
    y = Scale(*round_outwards(lowest, highest), _HEIGHT - _BOTTOM, _TOP)
    label = (
        f"{structure}: bias {number(bias)} ml, limits of agreement {number(limits[0])} to {number(limits[1])} ml, "
        f"{len(mean)} cases"
    )
    return drawing(
        _WIDTH,
        _HEIGHT,
        label,
        tag("text", structure, class_="name", x=0, y=14),
        x_axis(x, _TOP, _HEIGHT - _BOTTOM, "mean of reference and prediction, ml", about=4),
        y_axis(y, _LEFT, _WIDTH - _RIGHT, "prediction − reference, ml"),
        tag("line", class_="zero", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=coordinate(y(0)), y2=coordinate(y(0))),
        _levels(y, bias, limits),
        _points(x, y, mean, difference, names, limits),
    )


def _levels(y: Scale, bias: float, limits: tuple[float, float]) -> Html:
    """The lines of bias and limits with their values, pushed apart where they would overlap."""
    levels = [(limits[1], "limit"), (bias, "bias"), (limits[0], "limit")]
    at = [y(value) for value, _ in levels]
    labels_at = [min(at[0], at[1] - 24), at[1], max(at[2], at[1] + 24)]
    parts = []
    right = _WIDTH - _RIGHT
    for (value, kind), line_at, label_at in zip(levels, at, labels_at, strict=True):
        name = "bias" if kind == "bias" else "±1.96 SD"
        parts += [
            tag("line", class_=kind, x1=_LEFT, x2=right, y1=coordinate(line_at), y2=coordinate(line_at)),
            tag("text", name, class_="tick", x=right + 5, y=coordinate(label_at - 1)),
            tag("text", number(value), class_="value", x=right + 5, y=coordinate(label_at + 11)),
        ]
    return join(parts)


def _points(
    x: Scale,
    y: Scale,
    mean: NDArray[np.float64],
    difference: NDArray[np.float64],
    names: Sequence[str],
    limits: tuple[float, float],
) -> Html:
    path, marks = [], []
    for across, up, name in zip(mean, difference, names, strict=True):
        cx, cy = coordinate(x(across)), coordinate(y(up))
        if limits[0] <= up <= limits[1]:
            path.append(f"M{cx} {cy}h0")
        else:
            tip = tag("title", f"{name}: {number(float(up))} ml at {number(float(across))} ml")
            marks.append(tag("circle", tip, class_="outlier", cx=cx, cy=cy, r=3.2))
    return join([tag("path", class_="points", d="".join(path)), *marks])
