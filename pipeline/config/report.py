"""Section `report`: which cases the report shows in pictures."""

from __future__ import annotations

from pydantic import Field

from pipeline.base.strict_model import StrictModel


class ReportConfig(StrictModel):
    """What the report shows in pictures."""

    worst_cases: int = Field(default=6, ge=0)
    """Cases with the lowest mean Dice, shown on three planes."""
    median_cases: int = Field(default=3, ge=0)
    """Cases in the middle of the order, to know what is usual."""
