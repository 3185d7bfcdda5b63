"""Compiling the network where it can be done; training goes on without where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.base.machine import is_out_of_memory
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.losses.loss_config import sums_over_batch
from pipeline.training.train_context import TrainContext

log = logging.getLogger(__name__)


def compile_or_fallback(network: nn.Module) -> Callable[[torch.Tensor], Any]:
    """The network compiled at its first call; if that fails, the network itself, with a sentence."""
    function: Callable[[torch.Tensor], Any] | None = None

    def call(image: torch.Tensor) -> Any:
        nonlocal function
        try:
            function = torch.compile(network) if function is None else function
            return function(image)
        except Exception as error:  # whatever it is: what is the network's own fault shows again without compiling
            if function is network or is_out_of_memory(error):
                raise
            said = (str(error).splitlines() or [""])[0]
            log.warning("torch.compile does not work here, goes on without: %s %s", type(error).__name__, said)
        function = network
        return network(image)

    return call


def wrap_network(shop: TrainContext, network: nn.Module, loss: nn.Module) -> Callable[[torch.Tensor], Any] | None:
    """The network as training calls it: compiled, with gradients averaged over the processes, or as it is (None)."""
    if shop.world.size > 1:
        if sums_over_batch(shop.config.loss) and not isinstance(loss, FusedDiceCE):
            own_sums = "batch: false" if getattr(shop.config.loss, "batch", False) else "another loss"
            instead = own_sums if shop.plan.overlapping else f"dice_ce without one_vs_rest, {own_sums}"
            raise ConfigError(
                f"train.loss {shop.config.loss.name} would sum over the batch within each process only: dice_ce with "
                f"softmax alone sums across processes; use {instead}, or one process"
            )
        network = nn.parallel.DistributedDataParallel(network)
    if shop.config.compile:
        return compile_or_fallback(network)
    return network if shop.world.size > 1 else None
