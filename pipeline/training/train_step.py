"""What learns: network, loss, optimiser and the moving average of the weights, with one method that takes a step.

Everything that changes while training is in `state()`, a dict of plain data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import TrainingError
from pipeline.base.machine import is_out_of_memory
from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.losses.deep_supervision import deep_supervision_loss
from pipeline.models.networks.build_network import has_batch_norm
from pipeline.training.prefetch import Batch

log = logging.getLogger(__name__)

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TrainStep:
    """A network in training.

    precision: fp32, bf16 or fp16 (autocast; fp16 with scaled gradients). level_weights: of the losses of a network
    that gives several outputs. micro_batch: samples that go through the network at once; their gradients are added up
    to those of the whole batch. distributed: other processes take part, so that this one cannot change its portions
    alone. divisible: the loss of a batch is the mean of those of its samples. forward: the network as it is called
    (compiled or distributed), if not `network`.
    """

    network: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    device: torch.device
    precision: str
    grad_clip: float | None
    level_weights: Sequence[float] | None
    micro_batch: int
    divisible: bool = True
    distributed: bool = False
    forward: Callable[[torch.Tensor], Any] | None = None

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def scaled(self) -> bool:
        """Whether gradients are scaled (fp16), so that one that is not finite is ordinary and leaves its step out."""
        return self.scaler.is_enabled()

    def step(self, batch: Batch, step: int, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of gradient descent; returns the loss and the gradient's norm as they were before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        loss = self._gradients(batch)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.grad_clip or float("inf"))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, step)
        return loss, norm

    def _gradients(self, batch: Batch) -> torch.Tensor:
        """Sets the gradients of the batch's mean loss; where memory does not suffice, in ever smaller portions."""
        while True:
            try:
                self.optimizer.zero_grad(set_to_none=True)
                return self._gradients_by_portions(batch)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not is_out_of_memory(error) or self.distributed:
                    raise
                message = str(error).splitlines()[0]
            self._halve_micro_batch(message)

    def _gradients_by_portions(self, batch: Batch) -> torch.Tensor:
        samples = batch.image.shape[0]
        total = torch.zeros((), device=self.device)
        for image, label in zip(batch.image.split(self.micro_batch), batch.label.split(self.micro_batch), strict=True):
            with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
                output = (self.forward or self.network)(image)
            share = image.shape[0] / samples
            levels = [output] if isinstance(output, torch.Tensor) else output
            loss = share * deep_supervision_loss(self.loss, levels, label, self.level_weights, self.distributed)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _halve_micro_batch(self, message: str) -> None:
        if self.micro_batch == 1:
            raise TrainingError(
                f"not enough memory for a single patch ({message}); use a smaller plan.patch_size or a narrower network"
            )
        self.micro_batch = (self.micro_batch + 1) // 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        exact = not has_batch_norm(self.network) and self.divisible
        log.warning(
            "out of memory: goes on with %d patches at a time and adds up their gradients; %s",
            self.micro_batch,
            "the result is the same up to rounding"
            if exact
            else "batch norm, batch losses and weighted voxels see these fewer patches, so the result differs a little",
        )

    def validated_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are validated, saved and packaged: the moving average where there is one."""
        return self.average.weights if self.average is not None else self.network.state_dict()

    def state(self) -> dict[str, Any]:
        """All that learning has changed, for `load_state`."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights if self.average is not None else None,
            "scaler": self.scaler.state_dict(),
            "micro_batch": self.micro_batch,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to a state, exactly."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.micro_batch = state["micro_batch"]
        if self.average is not None:
            self.average.weights = {name: tensor.clone() for name, tensor in state["average"].items()}
