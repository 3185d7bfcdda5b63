"""Compiling the network where it can be done; training goes on without where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.base.machine import is_out_of_memory

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
