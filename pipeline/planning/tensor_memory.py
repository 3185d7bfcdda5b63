"""Counts the bytes of tensors that are alive while code runs, on tensors without content as well as on true ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Workspace = Callable[[Any, Sequence[Any], Sequence[torch.Tensor]], int]
"""Bytes that an operation takes for as long as it runs, from the operation, its arguments and its results."""


class LiveTensorBytes(TorchDispatchMode):
    """While entered, follows every storage that an operation makes from its making until it is freed.

    live: bytes now. peak: the most at any time, with the operation's workspace while it ran. Storages that were there
    before (weights) are not counted; views and results in place are no new storages.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._workspace = workspace
        self._followed: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        made = _tensors(result)
        for tensor in made:
            if tensor.untyped_storage()._cdata not in known:
                self._follow(tensor.untyped_storage())
        self.peak = max(self.peak, self.live + self._workspace(func, args, made))
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._followed:
            return
        self._followed.add(storage._cdata)
        self.live += storage.nbytes()
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, address: int, size: int) -> None:
        self._followed.discard(address)
        self.live -= size


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
