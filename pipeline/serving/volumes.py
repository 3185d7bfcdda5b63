"""How large each structure of a segmentation is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.data.formats import image_ending, read_label
from pipeline.data.volume import Volume
from pipeline.serving.labels import Label


def structure_volumes_ml(segmentation: Volume, labels: Sequence[Label]) -> dict[str, float]:
    """Structure to its volume in millilitres; a structure that is not there has 0."""
    values, counts = np.unique(segmentation.array, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxel_ml = abs(float(np.linalg.det(segmentation.grid.affine[:3, :3]))) / 1000.0
    return {label.name: voxel_ml * sum(voxels.get(value, 0) for value in label.values) for label in labels}


def measure_folder(folder: Path, labels: Sequence[Label]) -> dict[str, dict[str, float]]:
    """File name of each segmentation in `folder` to its volumes, sorted by name."""
    paths = sorted(path for path in folder.iterdir() if image_ending(path))
    return {path.name: structure_volumes_ml(read_label(path), labels) for path in paths}
