"""How much memory this process holds, and held at the most."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GIB = 2**30


def resident_memory_gib() -> float:
    """The resident set now, in GiB."""
    import psutil

    return psutil.Process().memory_info().rss / _GIB


def peak_memory_gib() -> float:
    """The largest resident set since `forget_peak`, in GiB.

    From the kernel's own mark where there is one: what getrusage tells begins with the peak of the process that started
    this one.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / _GIB


def forget_peak() -> None:
    """Makes `peak_memory_gib` count from now on, where the kernel offers it (Linux); else it counts from the start."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="utf-8")
