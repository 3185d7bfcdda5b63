"""The memory of this process: what it takes now, and the most it took since it was last asked to forget."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Makes `peak_memory_gib` count from now on, where the kernel offers it (Linux); else it counts from the start."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory_gib() -> float:
    """The largest resident set since `forget_peak`, in GiB."""
    if (found := _status("VmHWM")) is not None:
        return found
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def resident_memory_gib() -> float:
    """The resident set now, in GiB."""
    import psutil

    return psutil.Process().memory_info().rss / 2**30


def _status(key: str) -> float | None:
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 2**30
    return None
