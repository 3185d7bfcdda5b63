"""One case for the patch store: read, conform, find where its structures lie, write."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, TooLargeError
from pipeline.base.files import safe_join
from pipeline.base.rng import RandomPurpose, generator
from pipeline.dataset.case_index import Case, image_paths
from pipeline.dataset.label_encoding import ignore_index, index_type
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid, Shape, resampled_grid
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.preprocessing.plan import Plan
from pipeline.preprocessing.preprocess import preprocess, preprocess_label
from pipeline.sampling.patch_store import case_bytes, write_case


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
        conformed = preprocess(read_image(image_paths(case, work.root), plan.resample_channels), plan)
        label = preprocess_label(read_label(safe_join(work.root, case.label)), plan, conformed, work.grid_tolerance_mm)
    except (DataError, MemoryError) as error:
        kind = TooLargeError if isinstance(error, MemoryError) else DataError
        raise kind(f"case {case.id}: {str(error) or 'there is not enough memory for it'}") from None
    # A case's locations depend on its name, not on its place in the list.
    rng = generator(work.seed, RandomPurpose.LOCATIONS, zlib.crc32(case.id.encode()))
    locations, foreground = find_locations(label, plan, work.locations_per_class, rng)
    entry = write_case(work.store, case.id, case.subject, conformed.image, label, locations, foreground)
    return case.id, entry


def find_locations(
    label_XYZ: NDArray, plan: Plan, most: int, rng: np.random.Generator
) -> tuple[Mapping[int, NDArray[np.int32]], Mapping[int, int]]:
    """For each structure index that occurs, at most `most` of its voxels (N, 3) drawn evenly, and its voxel count."""
    ignore = ignore_index(plan.structures, plan.overlapping)
    flat = label_XYZ.reshape(-1)
    candidates = np.flatnonzero((flat != 0) & (flat != ignore))
    values = flat[candidates]
    locations, foreground = {}, {}
    for index in range(1, len(plan.structures) + 1):
        member = (values >> values.dtype.type(index - 1)) & 1 == 1 if plan.overlapping else values == index
        found = candidates[member]
        foreground[index] = len(found)
        if len(found):
            chosen = found if len(found) <= most else np.sort(rng.choice(found, most, replace=False))
            locations[index] = np.stack(np.unravel_index(chosen, label_XYZ.shape), axis=1).astype(np.int32)
    return locations, foreground


def planned_shape(case: Case, plan: Plan) -> Shape:
    """A case's shape on the planned grid, cropped where the plan crops, without reading it."""
    shape = case.nonzero_shape if plan.crop == "nonzero" and case.nonzero_shape else case.shape
    _, canonical = to_canonical(Grid(shape, np.array(case.affine)))
    return resampled_grid(canonical, plan.spacing_mm).shape


def stored_bytes(case: Case, plan: Plan) -> int:
    """Bytes that the case will take in the store, its locations aside."""
    return case_bytes(planned_shape(case, plan), len(plan.channels), index_type(plan.structures, plan.overlapping))
