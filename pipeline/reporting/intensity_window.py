"""Intensity windows: the intensities that become black and white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocessing.plan import ChannelPlan

_WIDER = 0.15


@dataclass(frozen=True)
class Window:
    """The intensities that become black and white."""

    lower: float
    upper: float

    @classmethod
    def between(cls, lower: float, upper: float) -> Window:
        """A window that is not empty, even for a flat image."""
        return cls(lower, max(upper, lower + 1e-6))

    @classmethod
    def planned(cls, channel: ChannelPlan) -> Window | None:
        """A little wider than a planned CT window, so that all cases look alike; None: each image has its own."""
        if channel.scheme != "ct" or channel.lower is None or channel.upper is None:
            return None
        margin = _WIDER * (channel.upper - channel.lower)
        return cls(channel.lower - margin, channel.upper + margin)

    def to_grey(self, plane: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Intensities as 0 to 255; what is no number becomes black."""
        share = (np.nan_to_num(plane, nan=self.lower) - self.lower) / (self.upper - self.lower)
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def percentile_range(channel: NDArray[np.float32]) -> tuple[float, float]:
    finite = channel[np.isfinite(channel)]
    lower, upper = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    return float(lower), float(upper)
