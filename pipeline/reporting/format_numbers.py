"""Numbers and counts as text for readers of the report."""

from __future__ import annotations

from math import isfinite


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: `digits` decimals below 10, fewer above; an en dash for what is not defined."""
    if value is None or not isfinite(value):
        return "–"
    size = abs(value)
    decimals = digits if size < 10 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}".replace("-", "−")


def plural(count: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
