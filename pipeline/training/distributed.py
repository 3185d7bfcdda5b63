"""Several processes on one training, as torchrun starts them (DistributedDataParallel): gloo on CPUs, NCCL on GPUs.

Each process takes its part of a batch that is as many times larger, gradients are averaged, and only the first process
writes. All of them must be able to read the run folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from pipeline.base.errors import ConfigError


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is set in any process; all of them must ask together."""
        if self.size == 1:
            return flag
        told = torch.tensor(float(flag), device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def as_first(self, values: Mapping[str, float], names: Sequence[str], device: torch.device) -> dict[str, float]:
        """The first process's values by name, so that all decide alike where roundings differ."""
        if self.size == 1:
            return dict(values)
        told = torch.tensor([values.get(name, math.nan) for name in names], dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return {name: value for name, value in zip(names, told.tolist(), strict=True) if not math.isnan(value)}

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()


def processes_on_this_machine() -> int:
    """How many processes torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Joins the processes that torchrun started, each on its own GPU where there are GPUs; alone without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS, device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun started {local + 1} or more processes on this machine, but it has "
                f"{torch.cuda.device_count()} GPUs; use --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
