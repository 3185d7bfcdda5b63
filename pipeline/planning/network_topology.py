"""Network topology: strides and kernel sizes per level.

Rules after nnU-Net (Isensee 2021), with the time for training in place of a fixed GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Shape, Spacing
from pipeline.models.networks.network_config import AnyNetwork, UNetConfig, size_divisor

Triple = tuple[int, int, int]

# An axis is thick at twice the finest.
_THICK = 2.0
_SMALLEST_FEATURE_MAP = 4
_MOST_LEVELS = 6


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes per level, finest first."""

    strides: tuple[Triple, ...]
    kernel_size: tuple[Triple, ...]

    @property
    def divisor(self) -> Triple:
        """What sizes must be divisible by, per axis."""
        x, y, z = np.prod(self.strides, axis=0)
        return int(x), int(y), int(z)


def topology(patch: Sequence[float] | NDArray, spacing_mm: Spacing) -> Topology:
    """Halves each axis while it stays at least 4 voxels long, thick axes later than the others.

    Kernels are 1 across slices that are still at least twice as thick as the pixels, and 3 from then on.
    """
    size, spacing = np.array(patch, float), np.array(spacing_mm)
    strides: list[Triple] = [(1, 1, 1)]
    wide = spacing / spacing.min() < _THICK
    kernels = [_kernel(wide)]
    while len(strides) < _MOST_LEVELS:
        large = size >= 2 * _SMALLEST_FEATURE_MAP
        if not large.any():
            break
        halved = large & (spacing / spacing[large].min() < _THICK)
        size, spacing = np.where(halved, np.ceil(size / 2), size), np.where(halved, 2 * spacing, spacing)
        wide = wide | (spacing / spacing.min() < _THICK)
        x, y, z = (2 if half else 1 for half in halved)
        strides.append((x, y, z))
        kernels.append(_kernel(wide))
    while len(strides) < 3:  # the smallest network there is has three levels
        strides.append((1, 1, 1))
        kernels.append(_kernel(wide))
    return Topology(tuple(strides), tuple(kernels))


def _kernel(wide: NDArray[np.bool_]) -> Triple:
    x, y, z = (3 if each else 1 for each in wide)
    return x, y, z


def with_topology(network: AnyNetwork, found: Topology) -> tuple[dict[str, Any], Shape, str]:
    """The network's settings with strides and kernels, its divisor, and a sentence."""
    if not isinstance(network, UNetConfig):
        return network.model_dump(mode="json"), size_divisor(network), f"{network.name} has its own depth"
    levels = len(network.channels or network.strides or network.kernel_size or found.strides)
    if network.strides is None and levels != len(found.strides):
        found = with_levels(found, levels)
    strides = network.strides or found.strides
    kernels = network.kernel_size or (found.kernel_size if len(found.kernel_size) == len(strides) else None)
    settings = network.model_copy(update={"strides": strides, "kernel_size": kernels})
    said = "strides as given" if network.strides else "each axis halved while 4 voxels remain, thick slices later"
    return settings.model_dump(mode="json"), size_divisor(settings), f"{levels} levels, {said}"


def with_levels(found: Topology, levels: int) -> Topology:
    """A topology cut, or continued without halving, to a given number of levels."""
    more = levels - len(found.strides)
    return Topology(
        found.strides[:levels] + ((1, 1, 1),) * more, found.kernel_size[:levels] + found.kernel_size[-1:] * more
    )
