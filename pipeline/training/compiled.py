"""Compiling the network where it can be done; training goes on without where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

log = logging.getLogger(__name__)


def compiled(network: nn.Module) -> Callable[[torch.Tensor], Any]:
    """The network compiled at its first call; if that fails, the network itself, with a sentence."""
    function: Callable[[torch.Tensor], Any] = torch.compile(network)

    def call(image: torch.Tensor) -> Any:
        nonlocal function
        try:
            return function(image)
        except (TorchDynamoException, ImportError, OSError) as error:
            if function is network:
                raise
            log.warning("torch.compile does not work here, goes on without: %s", str(error).splitlines()[0])
            function = network
            return network(image)

    return call
