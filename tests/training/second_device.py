"""A second device beside the CPU, in place of a GPU: torch keeps the two apart, and the CPU does its work.

A tensor of it says that it is on `second:0` and holds one of the CPU. As on a GPU, an operation on tensors of two
devices is refused, unless it copies from one to the other or the CPU's tensor is a single number; and what is on it is
no numpy array. Importing this changes torch for the whole process: do it in one of its own.
"""

from __future__ import annotations

import threading
from collections import Counter

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("second", backend_module=_Module())
SECOND = torch.device("second:0")
CPU = torch.device("cpu")
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::to"}

operations: Counter[str] = Counter()
"""How often each operation ran on it, by name of the thread: "main" or "drawing"."""


class _Second(torch.Tensor):
    """A tensor of the second device, and its voxels."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _Second:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=SECOND
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, *args, **(kwargs or {}))

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of another device is no numpy array; copy it to the CPU first")

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.held.detach().__reduce_ex__(protocol)  # to a file, without its device


def _run(func, *args, **kwargs):
    """An operation with at least one tensor of the second device, or whose result is to be there."""
    leaves = tree_leaves((args, kwargs))
    there = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, _Second)}
    here = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, _Second)]
    name = func._schema.name
    if there and name not in _COPIES and any(tensor.dim() for tensor in here):
        raise RuntimeError(f"{name}: tensors of two devices")
    operations["main" if threading.current_thread() is threading.main_thread() else "drawing"] += 1
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    stays = asked[0].type == "second" if asked else bool(there)
    made = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    if name == "aten::copy_":
        return args[0]

    def given(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if not stays:
            return leaf.clone() if id(leaf) in there else leaf
        return there[id(leaf)] if id(leaf) in there else _Second(leaf)

    return tree_map(given, made)


def _on_cpu(leaf):
    if isinstance(leaf, torch.device):
        return CPU
    return leaf.held if isinstance(leaf, _Second) else leaf


_library = torch.library.Library("_", "IMPL")
_library.fallback(_run, "PrivateUse1")
