"""Work case by case: in this process, in a pool of processes, or on a Ray cluster. Results come in the order of items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from pipeline.base.errors import DataError, missing_extra
from pipeline.base.runtime import Runtime
from pipeline.base.terminal import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], runtime: Runtime, title: str
) -> Iterator[Result]:
    """`function` of each item, in order, with a progress bar.

    `function` and items must be importable by a fresh process. An exception of a call is raised here; DataError where
    the kernel killed a worker.
    """
    with progress(title, len(items)) as bar:
        for result in _results(function, items, runtime):
            bar.advance()
            yield result


def _results(function: Callable[[Item], Result], items: Sequence[Item], runtime: Runtime) -> Iterator[Result]:
    workers = min(runtime.worker_count, len(items))
    if runtime.executor == "ray":
        yield from _on_ray(function, items)
    elif runtime.executor == "serial" or workers <= 1:
        yield from map(function, items)
    else:
        yield from _in_processes(function, items, workers)


def _in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for item, future in zip(items, futures, strict=True):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    name = getattr(item, "id", item)
                    raise DataError(
                        f"a worker process was killed at or near {name}, most likely for want of memory; "
                        "use executor.workers: 1, or a machine with more memory"
                    ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _on_ray(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray", "executor.name: ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(function)
    for reference in [remote.remote(item) for item in items]:
        yield ray.get(reference)
