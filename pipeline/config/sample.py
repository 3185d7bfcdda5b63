"""Section `sample`: the patch store and the folds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel


class SampleConfig(StrictModel):
    """How prepared cases are kept and how they are divided into folds."""

    store: Literal["ram", "disk", "auto"] = "auto"
    """Where training reads patches from: ram, disk (memory-mapped), or auto: a GPU's memory where training leaves room
    there, else ram if the store takes under half of what training leaves free. On disk it is in any case."""
    folds: int = Field(default=5, ge=2)
    """Folds where the manifest gives none; fewer if there are fewer subjects."""
    locations_per_class: int = Field(default=5000, ge=1)
    """Voxels of each structure per case, drawn once, on which oversampled patches are centred."""
    seed: int = Field(default=0, ge=0)
    """Of the folds and the locations; apart from the run's seed, so that runs of other seeds share their folds."""
