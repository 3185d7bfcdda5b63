"""What all folds of a training have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.config.train import TrainConfig
from pipeline.dataset.label_encoding import ignore_index
from pipeline.preprocessing.plan import Plan
from pipeline.sampling.patch_store import PatchStore
from pipeline.training.distributed import SINGLE_PROCESS, World
from pipeline.training.validation import LabelTables


@dataclass(frozen=True)
class TrainContext:
    """What all folds have in common."""

    config: TrainConfig
    plan: Plan
    store: PatchStore
    seed: int
    device: torch.device
    world: World = SINGLE_PROCESS

    @property
    def labelling(self) -> LabelTables:
        """How stored labels are read: ignored voxels hold one value."""
        plan = self.plan
        ignore = None if plan.ignore_value is None else ignore_index(plan.structures, plan.overlapping)
        return LabelTables(tuple(plan.structures), plan.overlapping, ignore)

    @property
    def batch_size(self) -> int:
        """Patches per step and process."""
        return self.plan.batch_size * self.config.accumulate
