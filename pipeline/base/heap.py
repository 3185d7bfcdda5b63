"""Keeps freed memory in the process, which training on a CPU needs, and gives it back where memory is short.

glibc gives every large block back to the kernel when it is freed. A training step frees and takes the same blocks
again and again, so that up to a third of its time goes into page faults.
"""

from __future__ import annotations

import ctypes
import sys

from pipeline.base.process_memory import resident_memory_gib

ONE_POOL = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process in which what one thread has freed is there for every other one.

glibc gives threads pools of their own and reads this when the process starts; what `keep_freed_memory` says of it comes
too late where threads have begun.
"""

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed for the next allocation; returns whether it could be told.

    Elsewhere (musl, macOS, another allocator) it does nothing. Blocks that are taken already keep their old manners,
    so call it before the work begins.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _GROW_BY, _ARENA_MAX: 1}
    taken = [mallopt(option, value) == 1 for option, value in settings.items()]
    return all(taken)


def give_back_freed_memory() -> bool:
    """Gives the kernel what was freed and kept; returns whether there was any.

    For when memory is short: what is taken next costs its page faults again.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return False
    return bool(trim(ctypes.c_size_t(0)))


class HeapTrimmer:
    """Holds what the process keeps unused to little, while work goes on that takes and frees blocks of many sizes.

    A hole of just the right size is often not taken again (glibc before 2.38 wants some more where a block is to be
    aligned), so that a heap may grow to several times what is in use.
    """

    SLACK_GIB = 1 / 32
    RARELY = 8
    """Pieces of work between two times of giving back; more often, and the limit is too low for what each one takes."""

    def __init__(self, wanted_gib: float) -> None:
        """wanted_gib: what the work takes beside what the process has now."""
        self._limit_gib, self._pieces = resident_memory_gib() + wanted_gib + self.SLACK_GIB, 0

    def trim(self) -> None:
        """Gives back what was freed where the process has outgrown what it wanted; for before each piece of work."""
        self._pieces += 1
        if resident_memory_gib() > self._limit_gib:
            give_back_freed_memory()
            # What is still there is in use, by other threads too: giving back again would only cost page faults.
            raised = self._limit_gib + self.SLACK_GIB / 4 * (self._pieces < self.RARELY)
            self._limit_gib, self._pieces = max(raised, resident_memory_gib() + self.SLACK_GIB), 0
