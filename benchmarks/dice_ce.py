"""The fused Dice + CE against MONAI's DiceCELoss: seconds and peak memory of forward and backward, paired.

    python benchmarks/dice_ce.py [--device cuda] [--threads 2] [--repeats 15] [--record FILE]

Both get the same logits and labels, in turn, at 2, 8 and 64 classes. Memory is what is allocated beyond the inputs at
the highest point: on a CPU counted by torch's profiler, on a GPU by its allocator. Predicted: at least 1.5 times as
fast, at most half the memory.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import monai
import torch
from monai.losses import DiceCELoss
from recording import write_record
from torch.profiler import ProfilerActivity, profile

from pipeline.base.heap import keep_freed_memory
from pipeline.base.terminal import format_table
from pipeline.models.losses.fused_dice_ce import FusedDiceCE

CASES = {2: (2, 64, 64, 64), 8: (2, 64, 64, 64), 64: (1, 48, 48, 48)}
"""Classes to batch and size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {arguments.threads} threads, torch {torch.__version__}, monai {monai.__version__}")
    columns = ("classes", "MONAI ms", "fused ms", "faster", "MONAI MiB", "fused MiB", "less memory")
    compared = {classes: _both(classes, device) for classes in CASES}
    times = {classes: _paired_seconds(*both, arguments.repeats) for classes, both in compared.items()}
    # Only then: in about one of five processes whatever came after torch's profiler took twice as long.
    memory = {classes: [_peak_mib(loss, logits) for loss in losses] for classes, (logits, losses) in compared.items()}
    rows = []
    for classes in CASES:
        (monai_s, fused_s), (monai_mib, fused_mib) = times[classes], memory[classes]
        milliseconds = f"{monai_s * 1e3:.1f}", f"{fused_s * 1e3:.1f}", f"{monai_s / fused_s:.2f}×"
        mebibytes = f"{monai_mib:.1f}", f"{fused_mib:.1f}", f"{monai_mib / fused_mib:.2f}×"
        rows.append((str(classes), *milliseconds, *mebibytes))
    print(format_table(columns, rows))
    if arguments.record:
        note = f"{name}, {arguments.threads} threads. Goals: 1.5 times as fast, half the memory."
        write_record(arguments.record, "Fused Dice + CE and MONAI's", columns, rows, [note])


def _both(classes: int, device: torch.device) -> tuple[torch.Tensor, list[Callable[[torch.Tensor], torch.Tensor]]]:
    """Logits, and MONAI's and our loss of them."""
    batch, *size = CASES[classes]
    torch.manual_seed(0)
    logits = torch.randn(batch, classes, *size, device=device)
    label = torch.randint(0, classes, (batch, *size), dtype=torch.uint8, device=device)
    theirs = DiceCELoss(include_background=False, softmax=True, to_onehot_y=True)
    return logits, [partial(_loss_of, theirs, label[:, None]), partial(_loss_of, FusedDiceCE(), label)]


def _paired_seconds(
    logits: torch.Tensor, losses: list[Callable[[torch.Tensor], torch.Tensor]], repeats: int
) -> list[float]:
    """The median of each, taken in turn."""
    seconds = [[_seconds(loss, logits) for loss in losses] for _ in range(repeats)]
    return [statistics.median(each) for each in zip(*seconds, strict=True)]


def _loss_of(loss: torch.nn.Module, label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return loss(logits, label)


def _seconds(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> float:
    leaf = logits.clone().requires_grad_()
    _finish(logits.device)
    begin = time.perf_counter()
    loss(leaf).backward()
    _finish(logits.device)
    return time.perf_counter() - begin


def _peak_mib(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> float:
    """The most that is allocated at a time during forward and backward, beyond logits and label."""
    leaf = logits.clone().requires_grad_()
    if logits.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(leaf).backward()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss(leaf).backward()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
