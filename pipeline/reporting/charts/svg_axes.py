"""Scales and axes of figures: data to drawing units, round tick values, grid lines."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from pipeline.reporting.html_builder import Html, join, tag


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] of the data linearly onto [start, end] of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The drawing coordinate of `value`, held inside the axis."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the axis, about this many."""
        step = round_step((self.high - self.low) / max(about, 1))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `step`."""
    power = 10 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def round_outwards(low: float, high: float, about: int = 5) -> tuple[float, float]:
    """The interval widened to round tick values; an empty one becomes a small one around its value."""
    if not (isfinite(low) and isfinite(high)):
        return 0.0, 1.0
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = round_step((high - low) / about)
    return floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step


def tick_text(value: float, step: float) -> str:
    """A tick value with as many decimals as its step needs."""
    decimals = max(0, -floor(log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−") if abs(value) < 1e5 else f"{value:.0e}"


def coordinate(value: float) -> str:
    """A drawing coordinate in as few characters as a tenth of a unit needs."""
    return f"{value:.1f}".removesuffix(".0")


def x_axis(scale: Scale, top: float, bottom: float, title: str, about: int = 6) -> Html:
    """Vertical grid lines from `top` to `bottom`, tick values below them and the axis title."""
    ticks = scale.ticks(about)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts: list[Html] = []
    for tick in ticks:
        x = coordinate(scale(tick))
        parts.append(tag("line", class_="grid", x1=x, x2=x, y1=coordinate(top), y2=coordinate(bottom)))
        parts.append(tag("text", tick_text(tick, step), class_="tick mid", x=x, y=coordinate(bottom + 15)))
    middle = coordinate((scale.start + scale.end) / 2)
    parts.append(tag("text", title, class_="axis mid", x=middle, y=coordinate(bottom + 32)))
    return join(parts)


def y_axis(scale: Scale, left: float, right: float, title: str, about: int = 5) -> Html:
    """Horizontal grid lines from `left` to `right`, tick values left of them and the axis title above."""
    ticks = scale.ticks(about)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts: list[Html] = []
    for tick in ticks:
        y = coordinate(scale(tick))
        parts.append(tag("line", class_="grid", x1=coordinate(left), x2=coordinate(right), y1=y, y2=y))
        parts.append(
            tag("text", tick_text(tick, step), class_="tick end", x=coordinate(left - 7), y=coordinate(scale(tick) + 4))
        )
    parts.append(tag("text", title, class_="axis", x=coordinate(left), y=coordinate(scale.end - 10)))
    return join(parts)


def drawing(width: float, height: float, label: str, *children: object) -> Html:
    """An SVG picture that scales with the page; `label` is what a screen reader says."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width=coordinate(width),
        role="img",
        aria_label=label,
    )
