"""One case read, preprocessed and written into the patch store."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError, TooLargeError
from pipeline.base.files import safe_join
from pipeline.base.rng import RandomPurpose, generator
from pipeline.dataset.loaded_cases import Case, manifest_image_paths
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.preprocessing.plan import Plan
from pipeline.preprocessing.preprocess import preprocess, preprocess_label
from pipeline.sampling.foreground_locations import find_locations
from pipeline.sampling.patch_store import write_case


@dataclass(frozen=True)
class Preparation:
    """What a worker process needs to prepare one case."""

    case: Case
    root: Path
    plan: Plan
    store: Path
    locations_per_class: int
    seed: int
    grid_tolerance_mm: float = 0.0

    @property
    def id(self) -> str:
        return self.case.id


def prepare_case(work: Preparation) -> tuple[str, dict[str, Any]]:
    """Writes the case into the store and returns its id and entry of the index; a DataError names the case."""
    case, plan = work.case, work.plan
    if case.label is None:
        raise DataError(f"case {case.id} has no label map, so that nothing can be learned from it")
    try:
        conformed = preprocess(read_image(manifest_image_paths(case, work.root), plan.resample_channels), plan)
        label = preprocess_label(read_label(safe_join(work.root, case.label)), plan, conformed, work.grid_tolerance_mm)
    except (DataError, MemoryError) as error:
        kind = TooLargeError if isinstance(error, MemoryError) else DataError
        raise kind(f"case {case.id}: {str(error) or 'there is not enough memory for it'}") from None
    # A case's locations depend on its name, not on its place in the list.
    rng = generator(work.seed, RandomPurpose.LOCATIONS, zlib.crc32(case.id.encode()))
    locations, foreground = find_locations(label, plan, work.locations_per_class, rng)
    entry = write_case(work.store, case.id, case.subject, conformed.image, label, locations, foreground)
    return case.id, entry
