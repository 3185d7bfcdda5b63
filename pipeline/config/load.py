"""Section `load`: how strictly data is checked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel


class LoadConfig(StrictModel):
    """How strictly data is checked."""

    on_fault: Literal["stop", "exclude"] = "stop"
    """stop: end with exit code 3 before any computing. exclude: go on without the faulty cases, end with 4."""
    grid_tolerance_mm: float = Field(default=0.1, ge=0)
    """How far corners of an image and its label may be apart; channels are held to 0.1 mm."""
    resample_channels: bool = False
    """Channels on another grid than the first one are resampled onto it (linearly); false: that is a fatal fault."""
