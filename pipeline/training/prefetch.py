"""Batches ahead of time: threads draw the next ones while the network is busy with this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier

import torch


@dataclass(frozen=True)
class Batch:
    """One step's patches on the device: image_BCXYZ float32 and label_BXYZ integers."""

    image: torch.Tensor
    label: torch.Tensor


@contextmanager
def prefetch(
    draw: Callable[[int], Batch], first: int, last: int, threads: int = 1, ahead: int = 2
) -> Iterator[Iterator[Batch]]:
    """The batches of steps first to last - 1 in order, drawn by `threads` threads, each at most `ahead` before use.

    A batch is a pure function of its step, so threads change nothing but the time that drawing takes. What `draw`
    raises is raised where its batch is taken. Leaving the context ends the threads.
    """
    threads = max(min(threads, last - first), 1)
    started = Barrier(threads + 1)

    def start() -> None:
        # The cores belong to the network; drawing only fills the gaps. Setting alone is not enough: at its first
        # parallel operation a thread takes the number that was set last, by whichever thread. Asking for it counts.
        torch.set_num_threads(1)
        torch.get_num_threads()
        started.wait()

    of_network = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "batches", start)
    steps = iter(range(first, last))
    all_started = False
    drawn: deque[Future[Batch]] = deque()

    def draw_more() -> None:
        if (step := next(steps, None)) is not None:
            drawn.append(pool.submit(draw, step))

    def taken() -> Iterator[Batch]:
        while drawn:
            batch = drawn.popleft().result()
            draw_more()
            yield batch

    try:
        for _ in range(threads * ahead):
            draw_more()
        if drawn:
            started.wait()
        all_started = True
        # torch also remembers the last number set anywhere, for threads to come
        torch.set_num_threads(of_network)
        yield taken()
    finally:
        # Only where something went wrong on the way: a thread that is told so while it leaves the barrier would take
        # the pool's sign to end from the others.
        if not all_started:
            started.abort()
        pool.shutdown(cancel_futures=True)
