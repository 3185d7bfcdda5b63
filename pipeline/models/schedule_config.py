"""Learning-rate schedules as settings. Without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel


class PolyConfig(StrictModel):
    """lr · (1 - step / max_steps) ^ power."""

    name: Literal["poly"] = "poly"
    power: float = Field(default=0.9, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps over which the rate rises linearly to its full value."""


class CosineConfig(StrictModel):
    """Half a cosine from lr down to `min_share` · lr."""

    name: Literal["cosine"] = "cosine"
    min_share: float = Field(default=0.0, ge=0, le=1)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps over which the rate rises linearly to its full value."""


ScheduleConfig = Annotated[PolyConfig | CosineConfig, Field(discriminator="name")]
