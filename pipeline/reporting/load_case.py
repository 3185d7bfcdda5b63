"""The cases that a report or viewer shows: their voxels, in RAS+ orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError
from pipeline.base.files import safe_join
from pipeline.dataset.loaded_cases import Case, manifest_image_paths
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.reporting.slices import CaseVolumes


def load_case(case: Case, root: Path, prediction: Path) -> CaseVolumes:
    """All channels, reference and prediction of a case that has both. DataError where they differ in grid."""
    image = read_image(manifest_image_paths(case, root), resample_channels=True)
    reference, predicted = read_label(safe_join(root, str(case.label))), read_label(prediction)
    for name, other in (("reference", reference), ("prediction", predicted)):
        if other.grid.shape != image.grid.shape:
            raise DataError(
                f"case {case.id}: its {name} has {other.grid.shape} voxels, its image {image.grid.shape}; "
                "`segpipe check` names what does not fit"
            )
    axis_map, grid = to_canonical(image.grid)
    return CaseVolumes(
        image=np.asarray(axis_map.apply(image.array)),
        reference=np.asarray(axis_map.apply(reference.array)),
        prediction=np.asarray(axis_map.apply(predicted.array)),
        spacing_mm=grid.spacing_mm,
    )
