"""How much memory training will take: one step of it is gone through on tensors without content, and they are counted.

The count is what the step itself keeps at its worst moment: what autograd saves, gradients on their way back, copies
in another precision. Beside it stand what no tensor shows: the program, what a convolution takes while it runs, and
the gaps of a heap. Program and convolutions were measured by themselves; the factors for the heap were chosen with some
trainings on three machines (`benchmarks/records/2026-11-21-training-memory.md`), and others were held against the sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.base.errors import ConfigError
from pipeline.base.machine import available_memory_gib, usable_cores
from pipeline.config.plan import PlanConfig
from pipeline.models.networks.bf16_workaround import guard_bf16_convolutions
from pipeline.models.networks.build_network import build_network
from pipeline.planning.step_timing import Precision, StepSpec
from pipeline.planning.tensor_memory import LiveTensorBytes

# A process that trains next to nothing, on a CPU: torch, what training imports, and the code that runs.
_PROCESS_GIB = 0.5
# A heap that keeps what is freed (`base/allocator.py`) has gaps. A first step with each block mapped by itself takes
# what is counted; with that heap, 1.0 to 1.5 times as much (U-Net and SegResNet, fp32 and bf16), and of Swin UNETR,
# whose blocks are of many sizes, 1.6 to 2.3 times.
_HEAP = defaultdict(lambda: 1.4, swinunetr=2.0)
# Weights, AdamW's two moments, the moving average of the weights and the network that validates, four bytes each.
# Gradients are among the tensors that are counted.
_BYTES_PER_PARAMETER = 20
# Batches at once, each as large as a whole step, by one drawing thread: the one in use, two ahead of it, and what
# drawing takes where images are smaller than the patch: a margin of at most a quarter on each side is cut out (1.5³),
# and as much again for resampling. Larger images are not cut, so that theirs is a little less.
_BATCHES = 3 + 2 * 1.5**3
# Threads that a backward convolution in bf16 is seen to give buffers of their own to, at the most per sample.
_BUFFERS_PER_SAMPLE = 2


@dataclass(frozen=True)
class TrainingMemory:
    """GiB of a training process, apart from the patch store."""

    process: float
    weights: float
    batches: float
    step: float

    @property
    def total(self) -> float:
        return self.process + self.weights + self.batches + self.step


def predict_memory(work: StepSpec, precision: Precision, device: torch.device) -> TrainingMemory:
    """Peak memory of training: of the process on a CPU, of the device on a GPU."""
    network = guard_bf16_convolutions(build_network(work.network, work.in_channels, work.out_channels, work.patch_size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    drawn = work.accumulate * work.batch_size * math.prod(work.patch_size)
    on_cpu = device.type == "cpu"
    return TrainingMemory(
        process=_PROCESS_GIB if on_cpu else 0.0,
        weights=_BYTES_PER_PARAMETER * parameters / 2**30,
        batches=_BATCHES * drawn * (4 * work.in_channels + 1) / 2**30,
        step=(_HEAP[work.network["name"]] if on_cpu else 1.0) * _peak_bytes(network, work, precision) / 2**30,
    )


def _peak_bytes(network: nn.Module, work: StepSpec, precision: Precision) -> int:
    """Bytes of a step's tensors at its worst moment: forward, a loss and backward, in training mode."""
    low = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    mode = FakeTensorMode()
    _empty(network.train(), mode)
    with mode:
        image = torch.empty(work.batch_size, work.in_channels, *work.patch_size)
        with LiveTensorBytes(_workspace) as counted:
            with torch.autocast("cpu", low, enabled=low is not None):
                output = network(image)
            levels = [output] if isinstance(output, torch.Tensor) else output
            # As large as Dice + cross-entropy: probabilities in fp32, kept for their gradient.
            losses = [level.float().softmax(1).mean() for level in levels]
            del output, levels
            torch.stack(losses).sum().backward()
        return counted.peak


def _empty(network: nn.Module, mode: FakeTensorMode) -> None:
    """Replaces weights and buffers by tensors without content. They are made outside: some networks look at them."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)


def _workspace(operation: Any, arguments: Sequence[Any], made: Sequence[torch.Tensor]) -> int:
    """What a convolution takes on a CPU while it runs, beside its input x and output y, as measured one by one.

    Forward a copy of x in the layout that oneDNN computes in, transposed ones x and twice y. Backward x and y; in bf16
    each thread turns a whole sample of both as well.
    """
    if operation is torch.ops.aten.convolution.default:
        transposed = arguments[6]
        return _bytes(arguments[0]) + (2 * _bytes(made[0]) if transposed else 0)
    if operation is torch.ops.aten.convolution_backward.default:
        gradient, image = arguments[:2]
        both, samples = _bytes(gradient) + _bytes(image), image.shape[0]
        threads = min(usable_cores(), _BUFFERS_PER_SAMPLE * samples) if image.dtype == torch.bfloat16 else 0
        return both + threads * both // samples
    return 0


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def refuse_pins_beyond(limit_gib: float, needed_gib: float, config: PlanConfig) -> None:
    """A ConfigError where pins ask for more memory than training may take; what is open has been chosen to fit."""
    pins = {"plan.patch_size": config.patch_size, "plan.batch_size": config.batch_size}
    pinned = [key for key, pin in pins.items() if pin is not None]
    if pinned and needed_gib > limit_gib:
        raise ConfigError(
            f"{', '.join(pinned)}: training would need about {needed_gib:.2g} GiB, but {limit_gib:.2g} GiB may be "
            "used; choose less, leave it open, or set plan.memory_gib if more can be had"
        )


def free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    return available_memory_gib()
