"""How long a training step takes on this machine: measured, since no table knows it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.base.machine import is_out_of_memory, usable_cores
from pipeline.io.geometry import Shape
from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.losses.build_loss import build_loss
from pipeline.models.losses.deep_supervision import downsample_label
from pipeline.models.losses.loss_config import AnyLoss, DiceCEConfig
from pipeline.models.networks.bf16_workaround import guard_bf16_convolutions
from pipeline.models.networks.build_network import build_network
from pipeline.models.optimizer_config import AdamWConfig, SGDConfig
from pipeline.models.optimizers import build_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_USUAL_LOSS = DiceCEConfig()
_OPTIMIZERS: dict[str, AdamWConfig | SGDConfig] = {"adamw": AdamWConfig(lr=1e-6), "sgd": SGDConfig(lr=1e-6)}
_WARM_UP, _MOST = 3, 40
# Fewer are one mood of the machine: 12 short steps were up to a fifth faster than those of the training after them.
# Steps of slow networks are measured a little shorter rather than stealing from their training.
_SECONDS = 6.0
# A GPU is waited for after as many steps as take about this long, since in training it is hardly ever waited for.
_SECONDS_UNWATCHED, _MOST_UNWATCHED = 0.25, 20


@dataclass(frozen=True)
class StepSpec:
    """What one step works on."""

    network: Mapping[str, Any]
    in_channels: int
    out_channels: int
    patch_size: Shape
    batch_size: int
    overlapping: bool = False
    accumulate: int = 1
    """Batches that a step of training adds up: as many are drawn ahead, and one at a time is worked on."""
    loss: AnyLoss = _USUAL_LOSS
    optimizer: Literal["adamw", "sgd"] = "adamw"
    ignore: int | None = None
    """What ignored voxels of a label hold, where the data have any."""


MakeStep = Callable[[StepSpec, Precision, torch.device], Callable[[], None]]
"""Makes a step that can be taken again and again."""


def seconds_per_step(
    work: StepSpec,
    precisions: Sequence[Precision],
    device: torch.device,
    num_threads: int | None = None,
    make_step: MakeStep | None = None,
) -> dict[Precision, float]:
    """For each precision the median of some steps: forward, loss, backward, optimiser and moving average.

    Precisions take turns, so that whatever else the machine does weighs on all of them alike. Sets the number of
    threads of this process. Random numbers of the caller are left as they were. Raises a ConfigError where memory does
    not suffice. make_step: None makes a `TimedStep`.
    """
    torch.set_num_threads(num_threads or usable_cores())
    try:
        with gpu_as_in_training(device):
            return _medians(work, precisions, device, make_step or TimedStep)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"plan: a step of {work.batch_size} patches of {list(work.patch_size)} does not fit into the memory of "
            f"{device}, which others may use too; set plan.memory_gib, or a smaller plan.patch_size or batch_size"
        ) from None


@contextmanager
def gpu_as_in_training(
    device: torch.device, empty_cache: Callable[[], None] = torch.cuda.empty_cache
) -> Iterator[None]:
    """Lets a GPU choose its convolutions by trying them, and gives its memory back at the end."""
    searched = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda"  # as training has it (unless train.deterministic)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searched
        if device.type == "cuda":
            empty_cache()  # what the steps took is free for training, and for others


def _medians(
    work: StepSpec, precisions: Sequence[Precision], device: torch.device, make_step: MakeStep
) -> dict[Precision, float]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        steps = {precision: make_step(work, precision, device) for precision in precisions}
        quickest = min(min(times) for times in time_interleaved(steps, _WARM_UP, _SECONDS / 3, device).values())
        unwatched = max(min(int(_SECONDS_UNWATCHED / quickest), _MOST_UNWATCHED), 1) if device.type == "cuda" else 1
        times = time_interleaved(steps, _MOST, _SECONDS, device, unwatched)
        return {name: statistics.median(each) for name, each in times.items()}


def time_interleaved(
    steps: Mapping[Precision, Callable[[], None]],
    most: int,
    seconds: float,
    device: torch.device,
    unwatched: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Precision, list[float]]:
    """Seconds of a step in each of at most `most` rounds, fewer (but at least two) where they take long.

    unwatched: steps of a round, after which alone a GPU is waited for.
    """
    times: dict[Precision, list[float]] = {name: [] for name in steps}
    begin, rounds = clock(), 0
    while rounds < 2 or (rounds < most and clock() - begin < seconds * len(steps)):
        for name, step in steps.items():
            started = clock()
            for _ in range(unwatched):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append((clock() - started) / unwatched)
        rounds += 1
    return times


class TimedStep:
    """A training step as training takes it, with its loss and its kind of optimiser, on made-up data."""

    def __init__(self, work: StepSpec, precision: Precision, device: torch.device) -> None:
        network = build_network(work.network, work.in_channels, work.out_channels, work.patch_size)
        self.network = guard_bf16_convolutions(network).to(device)
        if device.type == "cuda":
            self.network = self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        weights = [1.0] * work.out_channels  # whatever they are, they take as long
        self.loss = build_loss(work.loss, work.out_channels, work.overlapping, weights, work.ignore).to(device)
        self.optimizer = build_optimizer(_OPTIMIZERS[work.optimizer], self.network.parameters())
        self.average = MovingAverage(self.network, 10)
        self.device, self.dtype = device, AUTOCAST[precision]
        shape = (work.batch_size, *work.patch_size)
        self.image = torch.randn(shape[0], work.in_channels, *shape[1:], device=device)
        self.label = torch.randint(0, work.out_channels, shape, dtype=_label_type(work), device=device)
        if work.ignore is not None:  # losses may pick the voxels that count, which takes time where there are any
            self.label[..., 0] = work.ignore

    def __call__(self) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.network(self.image)
        levels = [output] if isinstance(output, torch.Tensor) else output
        losses = [self.loss(logits, downsample_label(self.label, logits)) for logits in levels]
        torch.stack(losses).mean().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self.optimizer.step()
        self.average.update(self.network, 100)


def _label_type(work: StepSpec) -> torch.dtype:
    """What labels are trained on as: indices with a mark for what is ignored, or one bit per structure."""
    largest = 2**work.out_channels if work.overlapping else work.out_channels
    return torch.uint8 if largest < 2**8 else torch.int32 if largest < 2**16 else torch.int64
