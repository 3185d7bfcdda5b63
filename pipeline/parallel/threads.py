"""Work on many files in threads: reading, unpacking and numpy let go of the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.base.machine import usable_cores
from pipeline.base.terminal import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """`function` of each item, in order, with a progress bar; what a call raises is raised here."""
    results: list[Result] = []
    with ThreadPoolExecutor(usable_cores()) as pool, progress(title, len(items)) as bar:
        for result in pool.map(function, items):
            results.append(result)
            bar.advance()
    return results
