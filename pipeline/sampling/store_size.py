"""Size of the patch store on disk, before it is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError
from pipeline.dataset.label_encoding import index_type
from pipeline.dataset.loaded_cases import Case
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid, Shape, resampled_grid
from pipeline.preprocessing.plan import Plan


def planned_shape(case: Case, plan: Plan) -> Shape:
    """A case's shape on the planned grid, cropped where the plan crops, without reading it."""
    shape = case.nonzero_shape if plan.crop == "nonzero" and case.nonzero_shape else case.shape
    _, canonical = to_canonical(Grid(shape, np.array(case.affine)))
    return resampled_grid(canonical, plan.spacing_mm).shape


def stored_bytes(case: Case, plan: Plan) -> int:
    """Bytes that the case will take in the store, its locations aside."""
    return case_bytes(planned_shape(case, plan), len(plan.channels), index_type(plan.structures, plan.overlapping))


def case_bytes(shape: Sequence[int], channels: int, label_type: np.dtype) -> int:
    """Bytes that the image and the label of a case take in the store."""
    return int(np.prod(shape, dtype=np.int64)) * (4 * channels + label_type.itemsize)


def require_disk(folder: Path, sizes: Iterable[int]) -> tuple[float, float]:
    """Refuses with a DataError where `folder` has no room for files of these sizes; returns needed and free GiB."""
    needed, free = sum(sizes) / 2**30, shutil.disk_usage(folder).free / 2**30
    if needed > 0.95 * free:
        raise DataError(
            f"the patch store needs {needed:.1f} GiB, but {folder} has {free:.1f} GiB free; free some, give another "
            "folder with --out, or plan a larger plan.spacing_mm"
        )
    return needed, free
