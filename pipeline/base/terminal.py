"""What the terminal shows: plain tables that never cut a case id, and a progress bar where a person looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain text table: as wide as its content (a pipe gets every character), numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [
        max(len(column), *(len(row[i]) for row in cells)) if cells else len(column) for i, column in enumerate(columns)
    ]
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        parts = [
            f"{cell:>{w}}" if right else f"{cell:<{w}}" for cell, w, right in zip(row, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(columns)), "  ".join("-" * w for w in widths), *map(line, cells)])


def format_duration(seconds: float) -> str:
    """Seconds as a person reads them: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text in {"", "-"}
    return True


class Progress(Protocol):
    """A bar that a stage moves on."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Moves the bar on by `steps` and shows `note` behind it."""


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


@contextmanager
def progress(title: str, total: int, done: int = 0, shown: bool = True) -> Iterator[Progress]:
    """A progress bar with time left on a terminal; nothing where output goes to a file or a pipe, or unless `shown`."""
    if not shown or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")

        class _Bar:
            def advance(self, steps: int = 1, note: str = "") -> None:
                bars.update(task, advance=steps, note=note)

        yield _Bar()
