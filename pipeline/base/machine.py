"""The machine a run has: device, threads, memory, versions. Nothing here enters a request digest."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import ConfigError

if TYPE_CHECKING:
    import torch


_CGROUP = "/sys/fs/cgroup"
MEMORY_FILES = (
    (f"{_CGROUP}/memory.max", f"{_CGROUP}/memory.current", f"{_CGROUP}/memory.stat"),
    (
        f"{_CGROUP}/memory/memory.limit_in_bytes",  # version 1, as on older hosts
        f"{_CGROUP}/memory/memory.usage_in_bytes",
        f"{_CGROUP}/memory/memory.stat",
    ),
)
"""Limit, use and statistics of this process's cgroup: a container's."""
CPU_QUOTA = f"{_CGROUP}/cpu.max"
"""What this process's cgroup may have of the CPU's time."""


@dataclass(frozen=True)
class Runtime:
    """How to work, as against what to compute: it never changes a result's request.

    device: what the user asked for: `auto`, `cuda`, `cuda:1` or `cpu`. executor: `serial`, `process` or `ray`.
    workers: processes for work per case; None is one per usable core.
    """

    device: str = "auto"
    executor: str = "process"
    workers: int | None = None

    @property
    def worker_count(self) -> int:
        return self.workers if self.workers is not None else usable_cores()


def usable_cores(quota: str | Path = CPU_QUOTA) -> int:
    """The cores this process may use: by its affinity and its container's share of time, not the machine's count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _cores_of_quota(Path(quota)) or cores)


def _cores_of_quota(file: Path) -> int | None:
    """Whole cores that a cgroup's limit of CPU time comes to (`docker --cpus 2`), at least 1; None without one."""
    words = file.read_text(encoding="utf-8").split() if file.is_file() else []
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None
    return max(int(words[0]) // int(words[1]), 1)


def check_device(device: str) -> None:
    """Refuses (ConfigError) a name that is no device, or a GPU on a machine without any; without importing torch."""
    if not re.fullmatch(r"auto|cpu(:0)?|cuda(:\d+)?", device):
        raise ConfigError(f"device: {device!r} is not a device; allowed: auto, cuda, cuda:N, cpu")
    gpus = (*Path("/dev").glob("nvidia[0-9]*"), *(Path(p) for p in ("/dev/dxg", "/dev/kfd") if Path(p).exists()))
    if device.startswith("cuda") and not gpus:
        raise ConfigError(f"device: {device!r} was asked for, but there is no GPU here; use device: auto or cpu")


def resolve_device(device: str) -> torch.device:
    """The torch device for `auto`, `cuda`, `cuda:N` or `cpu`; a ConfigError where it is not there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device: {device!r} is not a device; allowed: auto, cuda, cuda:N, cpu") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {device!r} was asked for, but torch sees no GPU here; use device: auto or cpu")
    if resolved.type == "cuda" and resolved.index is not None and resolved.index >= torch.cuda.device_count():
        raise ConfigError(f"device: {device!r}, but there are {torch.cuda.device_count()} GPUs (numbered from 0)")
    return resolved


def available_memory_gib(memory_files: Sequence[Sequence[str | Path]] = MEMORY_FILES) -> float:
    """Memory that can be taken now without swapping, in GiB, within the container's limit where there is one.

    memory_files: of each cgroup the files of limit, use and statistics.
    """
    import psutil

    free = psutil.virtual_memory().available
    for files in memory_files:
        own = _free_of_cgroup(*map(Path, files))
        free = free if own is None else min(free, own)
    return free / 2**30


def _free_of_cgroup(limit: Path, used: Path, statistics: Path) -> int | None:
    """Bytes left under a cgroup's limit; files that the kernel keeps and may drop are not taken. None without one."""
    if not limit.is_file() or not used.is_file():
        return None
    text = limit.read_text(encoding="utf-8").strip()
    if not text.isdigit():
        return None
    lines = statistics.read_text(encoding="utf-8").splitlines() if statistics.is_file() else []
    counted = dict(line.split(None, 1) for line in lines if len(line.split()) == 2)
    kept = sum(int(counted.get(name, 0)) for name in ("inactive_file", "active_file"))
    return int(text) - max(int(used.read_text(encoding="utf-8")) - kept, 0)


def environment() -> dict[str, Any]:
    """Versions, machine and source revision, for a result's provenance."""
    packages = ("segpipe", "torch", "monai", "numpy", "scipy", "nibabel", "pydicom")
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "packages": found,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch says that memory did not suffice, of a GPU or of a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
