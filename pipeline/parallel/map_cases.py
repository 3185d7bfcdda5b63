"""Work case by case: in this process, in a pool of processes, or on a Ray cluster; results in the order of items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import Any, NoReturn, TypeVar

from pipeline.base.child_process import stop_when_parent_exits
from pipeline.base.errors import DataError, missing_extra
from pipeline.base.machine import Runtime
from pipeline.base.terminal import progress

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def _raise_killed(item: object) -> NoReturn:
    raise DataError(
        f"the process that worked on case {getattr(item, 'id', item)} was killed, most likely for want of memory "
        "(in a pool, with the machine's to itself); crop that scan, leave it out, or use a machine with more memory"
    )


def _never(result: object) -> bool:  # noqa: ARG001
    return False


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    runtime: Runtime,
    title: str,
    killed: Callable[[Item], Result] = _raise_killed,
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
        yield from _on_ray(function, items, killed)
    elif runtime.executor == "serial" or workers <= 1:
        yield from map(function, items)
    else:
        yield from _in_processes(function, items, workers, killed, out_of_memory)


def _in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    killed: Callable[[Item], Result],
    out_of_memory: Callable[[Result], bool],
) -> Iterator[Result]:
    """In a pool; where a worker is killed, what is left goes on one by one, which needs the memory of one.

    What lacked memory waits until the pool has ended, and so do the results behind it.
    """
    done, waiting = 0, list[Result | MemoryError]()
    try:
        for result in _pooled(function, items, workers):
            if waiting or isinstance(result, MemoryError) or out_of_memory(result):
                waiting.append(result)
            else:
                done += 1
                yield result
    except BrokenProcessPool:
        log.warning("a worker process was killed, most likely for want of memory; going on one case at a time")
    for item, result in zip(items[done:], waiting, strict=False):
        if isinstance(result, MemoryError) or out_of_memory(result):
            yield _alone(function, item, killed)
        else:
            yield result
    for item in items[done + len(waiting) :]:
        yield _alone(function, item, killed)


def _pooled(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result | MemoryError]:
    """The results in order; a MemoryError for a call that raised it."""
    context = get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                try:
                    yield future.result()
                except MemoryError as error:
                    yield error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Make this worker end when the process that started it is gone: a killed run leaves none behind."""
    parent = parent_process()
    if parent is None:
        raise AssertionError("only a worker process ends with its parent")
    stop_when_parent_exits(pipe=parent.sentinel)


def _alone(function: Callable[[Item], Result], item: Item, killed: Callable[[Item], Result]) -> Result:
    with suppress(BrokenProcessPool):
        result = next(_pooled(function, [item], 1))
        if isinstance(result, MemoryError):
            raise result
        return result
    return killed(item)


def _on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], killed: Callable[[Item], Result]
) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray", "executor.name: ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(function)
    for item, reference in [(item, remote.remote(item)) for item in items]:
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # what the call raised, with a trace of the far process around it
            raise error.cause from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            result = killed(item)
        yield result
