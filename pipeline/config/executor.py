"""Section `executor`: how work per case is spread over processes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel


class ExecutorConfig(StrictModel):
    """How work per case is spread; never changes a result."""

    name: Literal["process", "serial", "ray"] = "process"
    """process: one process per core. serial: one after the other. ray: a cluster (pip install 'segpipe[ray]')."""
    workers: int | None = Field(default=None, ge=1)
    """Processes; null is one per usable core."""
