"""Moving voxels and tables to the device that trains."""

from __future__ import annotations

import torch
from numpy.typing import NDArray


def to_device(array: NDArray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """An array on a device of this kind; to a GPU through pinned memory, so that nobody waits for what it works on."""
    tensor = torch.as_tensor(array)
    if tensor.device.type == device.type:
        return tensor
    tensor = tensor.contiguous()
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
