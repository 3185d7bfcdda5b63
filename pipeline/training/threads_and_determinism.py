"""Threads and deterministic algorithms of torch, for the whole process."""

from __future__ import annotations

import os

import torch

from pipeline.base.machine import usable_cores
from pipeline.config.train import TrainConfig
from pipeline.preprocessing.plan import Plan
from pipeline.training.distributed import processes_on_this_machine


def set_up_torch(config: TrainConfig, plan: Plan, device: torch.device) -> None:
    """Threads and determinism for the whole process; processes on one machine share its cores."""
    cores = plan.num_threads or usable_cores()
    torch.set_num_threads(config.num_threads or max(cores // processes_on_this_machine(), 1))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products of matrices differ from run to run
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic
