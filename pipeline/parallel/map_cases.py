"""Work case by case: in this process, in a pool of processes, or on a Ray cluster; results in the order of items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pipeline.base.machine import Runtime
from pipeline.base.terminal import progress
from pipeline.parallel.process_pool import map_in_processes, raise_killed
from pipeline.parallel.ray_cluster import map_on_ray

Item = TypeVar("Item")
Result = TypeVar("Result")


def _never(result: object) -> bool:  # noqa: ARG001
    return False


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    runtime: Runtime,
    title: str,
    killed: Callable[[Item], Result] = raise_killed,
    out_of_memory: Callable[[Result], bool] = _never,
) -> Iterator[Result]:
    """`function` of each item, in order, with a progress bar.

    `function` and items must be importable by a fresh process. An exception of a call is raised here. killed: the
    result of an item where the kernel killed the process that worked on it alone; by default a DataError that names
    the item (its `id`). out_of_memory: whether a result says that there was too little memory: in a pool, where
    others had some of it, such an item (or one whose call raised a MemoryError) is tried once more, alone.
    """
    with progress(title, len(items)) as bar:
        for result in _results(function, items, runtime, killed, out_of_memory):
            bar.advance()
            yield result


def _results(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    runtime: Runtime,
    killed: Callable[[Item], Result],
    out_of_memory: Callable[[Result], bool],
) -> Iterator[Result]:
    workers = min(runtime.worker_count, len(items))
    if runtime.executor == "ray":
        yield from map_on_ray(function, items, killed)
    elif runtime.executor == "serial" or workers <= 1:
        yield from map(function, items)
    else:
        yield from map_in_processes(function, items, workers, killed, out_of_memory)
