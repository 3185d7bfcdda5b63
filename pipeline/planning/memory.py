"""How much memory training will take: from the tensors that a step keeps for its backward pass, without computing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pipeline.models.networks import build_network
from pipeline.planning.measure import Precision, Work

# The process itself with torch, MONAI and its libraries loaded, on a CPU.
_PROCESS_GIB = 0.65
# Weights, gradients, momentum and moving average, four bytes each.
_BYTES_PER_PARAMETER = 16
# What a backward step holds beside what was saved: the gradients before and behind its largest layer, and a copy in
# the layout that the convolution computes in.
_LARGEST_LAYERS = 3.0


@dataclass(frozen=True)
class Memory:
    """GiB of a training process, apart from the patch store."""

    process: float
    parameters: float
    activations: float

    @property
    def total(self) -> float:
        return self.process + self.parameters + self.activations


def predict_memory(work: Work, precision: Precision, device: torch.device) -> Memory:
    """Peak memory of training: of the process on a CPU, of the device on a GPU.

    The forward pass is run on tensors without content, and what autograd keeps is added up. A network that looks at
    the content of its tensors is run on one true sample instead.
    """
    try:
        with FakeTensorMode():
            kept = _forward(work, work.batch_size, precision)
    except DataDependentOutputException:
        kept = _forward(work, 1, precision).times(work.batch_size)
    activations = kept.saved + _LARGEST_LAYERS * kept.largest + kept.loss
    return Memory(
        process=_PROCESS_GIB if device.type == "cpu" else 0.0,
        parameters=_BYTES_PER_PARAMETER * kept.parameters / 2**30,
        activations=activations / 2**30,
    )


@dataclass(frozen=True)
class _Kept:
    """Bytes that a forward pass keeps, of its largest tensor and of the loss; and the number of parameters."""

    saved: int
    largest: int
    loss: int
    parameters: int

    def times(self, samples: int) -> _Kept:
        return _Kept(self.saved * samples, self.largest * samples, self.loss * samples, self.parameters)


def _forward(work: Work, samples: int, precision: Precision) -> _Kept:
    """Runs one forward pass in training mode and adds up the storages that autograd keeps, weights aside."""
    held: dict[int, torch.Tensor] = {}  # holding them keeps another tensor from taking a storage's address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    network = build_network(work.network, work.in_channels, work.out_channels, work.patch_size).train()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        output = network(torch.zeros(samples, work.in_channels, *work.patch_size))
    levels = [output] if isinstance(output, torch.Tensor) else output
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    sizes = [tensor.untyped_storage().nbytes() for address, tensor in held.items() if address not in own]
    return _Kept(
        saved=sum(sizes),
        largest=max(sizes, default=0),
        loss=sum(3 * 4 * level.numel() for level in levels),  # logits, probabilities, gradient, in fp32
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
