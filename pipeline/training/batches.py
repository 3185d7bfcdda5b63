"""Batches ahead of time: a thread draws the next ones while the network is busy with this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Batch:
    """One step's patches on the device: image_BCXYZ float32 and label_BXYZ integers."""

    image: torch.Tensor
    label: torch.Tensor


@contextmanager
def drawn_ahead(draw: Callable[[int], Batch], first: int, last: int, ahead: int = 2) -> Iterator[Iterator[Batch]]:
    """The batches of steps first to last - 1 in order, drawn by one thread at most `ahead` of their use.

    A batch is a pure function of its step, so the thread changes nothing but the time that drawing takes. What `draw`
    raises is raised where its batch is taken. Leaving the context ends the thread.
    """
    drawn: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=ahead)
    stop, started = threading.Event(), threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                drawn.put(item, timeout=0.1)
            except queue.Full:
                continue
            break

    def work() -> None:
        torch.set_num_threads(1)  # the cores belong to the network; this thread only fills the gaps
        started.set()
        try:
            for step in range(first, last):
                if stop.is_set():
                    break
                put(draw(step))
        except BaseException as error:
            put(error)

    def taken() -> Iterator[Batch]:
        for _ in range(first, last):
            item = drawn.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    threads = torch.get_num_threads()
    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    started.wait()
    torch.set_num_threads(threads)  # torch also remembers the last number set anywhere, for threads to come
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array as a tensor on the device; to a GPU through pinned memory, so that nobody waits for the copy.

    Unsigned 16-bit values, which torch can hardly compute with, become 32-bit ones.
    """
    tensor = torch.from_numpy(array.astype(np.int32) if array.dtype == np.uint16 else array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
