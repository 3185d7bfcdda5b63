"""Predicted against measured peak memory of a training process, for plans of several sizes and networks.

    python benchmarks/memory.py

Each plan is measured in a process of its own: training steps as planning times them, the process's peak resident set.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import torch

from pipeline.base.terminal import format_table
from pipeline.planning.measure import Precision, Work
from pipeline.planning.memory import predict_memory

PLANS: tuple[tuple[dict[str, Any], tuple[int, int, int], int, int, Precision], ...] = (
    # network, patch, batch, input channels, precision
    ({"name": "unet", "channels": [16, 32, 64, 128]}, (40, 56, 40), 4, 1, "bf16"),
    ({"name": "unet", "channels": [32, 64, 128, 256]}, (64, 64, 64), 2, 1, "fp32"),
    ({"name": "unet", "channels": [32, 64, 128, 256]}, (64, 64, 64), 4, 3, "bf16"),
    ({"name": "vnet"}, (48, 64, 48), 2, 1, "bf16"),
    ({"name": "segresnet", "init_filters": 16}, (64, 64, 64), 2, 3, "fp32"),
    ({"name": "swinunetr"}, (64, 64, 64), 1, 1, "fp32"),
)
STEPS = 2


def main() -> None:
    if len(sys.argv) > 1:
        print(measured(int(sys.argv[1])))
        return
    rows = []
    for number, (network, patch, batch, channels, precision) in enumerate(PLANS):
        work = Work(network, channels, 3, patch, batch)
        memory = predict_memory(work, precision, torch.device("cpu"))
        output = subprocess.run([sys.executable, __file__, str(number)], check=True, capture_output=True, text=True)
        peak = float(output.stdout.split()[-1])
        name = f"{network['name']} {'-'.join(map(str, network.get('channels', [])))}"
        activations = f"{memory.activations:.2f}"
        row = (name, "×".join(map(str, patch)), batch, precision, activations, f"{memory.total:.2f}", f"{peak:.2f}")
        rows.append((*row, f"{memory.total / peak:.2f}"))
    columns = ("network", "patch", "batch", "precision", "activations GiB", "predicted GiB", "measured GiB", "ratio")
    print(format_table(columns, rows))


def measured(number: int) -> float:
    """Peak GiB of this process after some steps of one plan."""
    from pipeline.base.allocator import keep_freed_memory

    keep_freed_memory()
    from pipeline.base.runtime import peak_memory_gib
    from pipeline.planning.measure import TrainingStep

    network, patch, batch, channels, precision = PLANS[number]
    step = TrainingStep(Work(network, channels, 3, patch, batch), cast(Precision, precision), torch.device("cpu"))
    for _ in range(STEPS):
        step()
    return peak_memory_gib()


if __name__ == "__main__":
    main()
