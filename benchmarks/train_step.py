"""Training on this machine: patches per second of our step, of nnU-Net's way, and of the convolutions alone.

    python benchmarks/train_step.py [--peer-python FILE] [--device cuda] [--threads 2] [--seconds 20] [--width 32]
        [--record FILE]

Rows, in turn, with the same patch (40×56×40), batch and network (DynUNet of the given width, deep supervision):

- `segpipe`: our whole step: bf16, fused loss at each level's own size, clipping, moving average;
- `segpipe, compiled`: the same with train.compile, whose first step compiles: what it costs, and what it may win back;
- `as nnU-Net`: fp32, MONAI's DynUNet with its outputs scaled up, MONAI's DiceCELoss per level, memory given back to the
  kernel, which is how nnU-Net runs on a CPU. Each row runs in a process of its own;
- `as nnU-Net, tuned`: the same with freed memory kept, which nnU-Net's users can have by setting glibc's variables;
- `nnU-Net's trainer`, as shipped and tuned: the same from the peer itself, where --peer-python names the interpreter
  of an environment that has it (`pip install torch==2.13.0 nnunetv2==2.8.1`); see `nnunet_step.py`;
- `convolutions`: forward and backward of every convolution of that network by itself, in our precision: the ceiling
  that a step of nothing but convolutions would reach.

The share of the ceiling is the first row over the last. Waiting for data is not in here: `timing.csv` of a run has it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from recording import write_record
from torch import nn

from pipeline.base.heap import keep_freed_memory
from pipeline.base.terminal import format_table
from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.networks.build_network import build_network
from pipeline.models.optimizer_config import AdamWConfig
from pipeline.models.optimizers import build_optimizer
from pipeline.training.prefetch import Batch
from pipeline.training.train_step import AUTOCAST, TrainStep
from pipeline.training.wrap_network import compile_or_fallback

PATCH, CLASSES = (40, 56, 40), 3
ROWS = ("segpipe", "segpipe, compiled", "as nnU-Net", "as nnU-Net, tuned", "convolutions")
PEER_ROWS: dict[str, dict[str, str]] = {
    "nnU-Net's trainer": {},
    "nnU-Net's trainer, tuned": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    },
}
"""What each adds to the environment. The variables are those with which glibc keeps what is freed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=7)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--peer-python", type=Path, help="of an environment with nnunetv2")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(_measured(arguments)))
        return
    rows = (*ROWS, *PEER_ROWS) if arguments.peer_python else ROWS
    rates: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for _ in range(arguments.rounds):
        for row in rows:
            if row in PEER_ROWS:
                command = [str(arguments.peer_python), str(Path(__file__).with_name("nnunet_step.py")), *sys.argv[1:]]
            else:
                command = [sys.executable, __file__, *sys.argv[1:], "--row", row]
            added = os.environ | PEER_ROWS.get(row, {})
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=added).stdout
            rates[row].append(json.loads(said.splitlines()[-1]))
    _report(rates, arguments)


def _report(measured: dict[str, list[tuple[float, float]]], arguments: argparse.Namespace) -> None:
    """Medians of the rounds, and of the ratios within each round."""
    rates = {row: [rate for rate, _ in rounds] for row, rounds in measured.items()}
    columns = ("row", "patches/s", "rounds", "segpipe over it", "first step")
    rows = [
        (
            row,
            f"{statistics.median(values):.2f}",
            ", ".join(f"{value:.2f}" for value in values),
            f"{statistics.median(mine / other for mine, other in zip(rates['segpipe'], values, strict=True)):.2f}",
            f"{statistics.median(first for _, first in measured[row]):.1f} s",
        )
        for row, values in rates.items()
    ]
    print(format_table(columns, rows))
    if arguments.record:
        note = (
            f"Batch {arguments.batch} of {'×'.join(map(str, PATCH))}, width {arguments.width}, {arguments.threads} "
            f"threads, {arguments.precision} for ours. Goals: 2.5 times nnU-Net's way as shipped, and 0.6 of the "
            "convolutions."
        )
        write_record(arguments.record, "A training step", columns, rows, [note])


def _measured(arguments: argparse.Namespace) -> tuple[float, float]:
    """Patches per second of one row, measured for the given time after a warm-up, and the seconds of its first step."""
    if arguments.row != "as nnU-Net":  # "tuned" keeps it
        keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    image = torch.randn(arguments.batch, 1, *PATCH, device=device)
    label = torch.randint(0, CLASSES, (arguments.batch, *PATCH), dtype=torch.uint8, device=device)
    own = {"segpipe": _ours, "segpipe, compiled": _ours, "convolutions": _convolutions}
    step = own.get(arguments.row, _theirs)(arguments, device, Batch(image, label))
    begin = time.perf_counter()
    step()
    _finish(device)
    first = time.perf_counter() - begin
    for _ in range(2):
        step()
    _finish(device)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < arguments.seconds:
        step()
        _finish(device)
        steps += 1
    return steps * arguments.batch / (time.perf_counter() - begin), first


def _network(arguments: argparse.Namespace, device: torch.device) -> nn.Module:
    channels = tuple(arguments.width * 2**level for level in range(4))
    return build_network({"name": "unet", "channels": channels, "deep_supervision": 2}, 1, CLASSES, PATCH).to(device)


def _ours(arguments: argparse.Namespace, device: torch.device, batch: Batch) -> Callable[[], object]:
    network = _network(arguments, device)
    train_step = TrainStep(
        network=network,
        loss=FusedDiceCE(),
        optimizer=build_optimizer(AdamWConfig(), network.parameters()),
        average=MovingAverage(network, 20),
        device=device,
        precision=arguments.precision,
        grad_clip=12.0,
        level_weights=None,
        micro_batch=arguments.batch,
        forward=compile_or_fallback(network) if arguments.row == "segpipe, compiled" else None,
    )
    return lambda: train_step.step(batch, 0, 1e-4)


def _theirs(arguments: argparse.Namespace, device: torch.device, batch: Batch) -> Callable[[], object]:
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    network = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=CLASSES,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[arguments.width * 2**level for level in range(4)],
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=2,
    ).to(device)
    loss = DiceCELoss(include_background=False, softmax=True, to_onehot_y=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99, nesterov=True, weight_decay=3e-5)
    label = batch.label[:, None]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            outputs = network(batch.image).unbind(1)
        total = sum(0.5**level * loss(output.float(), label) for level, output in enumerate(outputs))
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def _convolutions(arguments: argparse.Namespace, device: torch.device, batch: Batch) -> Callable[[], object]:
    """Every convolution of the network on inputs of its own size, forward and backward, nothing between them."""
    network = _network(arguments, device)
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(lambda module, given, _: calls.append((module, tuple(given[0].shape))))
    network(batch.image)
    dtype = AUTOCAST[arguments.precision] or torch.float32
    work = []
    for module, shape in calls:
        module._forward_hooks.clear()
        module.to(dtype)
        image = torch.randn(shape, device=device, dtype=dtype).requires_grad_(shape[1] > 1)
        work.append((module, image, torch.ones_like(module(image))))

    def step() -> None:
        for module, image, outer in work:
            module.zero_grad(set_to_none=True)
            image.grad = None
            module(image).backward(outer)

    return step


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
