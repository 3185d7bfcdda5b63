"""Weights as safetensors, and the state that exact resuming needs. Nothing here is ever unpickled as code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_write


def save_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes weights as safetensors, atomically; equal weights give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    atomic_write(path, lambda temporary: save_file(tensors, temporary))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads safetensors; a DataError where the file is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such weights file") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({error})") from None
