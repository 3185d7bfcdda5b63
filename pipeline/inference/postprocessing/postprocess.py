"""What is done to finished label maps: holes filled, stray components removed.

Nothing is done unless it is asked for, or was found to help in cross-validation: see `select_postprocessing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from pipeline.dataset.label_encoding import written_values
from pipeline.inference.postprocessing.connected_components import keep_components
from pipeline.inference.postprocessing.fill_holes import fill_holes
from pipeline.inference.predictor_config import PostprocessConfig
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import Plan

Structures = Mapping[str, tuple[int, ...]]


BYTES_A_VOXEL = 6
"""Beside the label map and its copy, where one structure fills the volume: its mask (1), the components (4) and which
of them go (1), or the masks (1 each) that filling holes works with."""


def postprocess(labels: Volume, settings: PostprocessConfig | Literal["none", "auto"], plan: Plan) -> Volume:
    """The label map after all steps that `settings` names; the map itself where there are none (or none chosen yet).

    A structure's mask is every voxel with one of its label values, so that a region keeps what lies inside it. What is
    removed becomes the region around the structure where the plan nests it in one, background elsewhere.
    """
    if isinstance(settings, str) or settings == PostprocessConfig():
        return labels
    structures, voxel_ml = plan.structures, voxel_volume_ml(labels)
    written = written_values(structures)
    array = labels.array.copy()
    for name in settings.fill_holes:
        fill_holes(array, structures[name], written[name])
    for name in settings.largest_component:
        keep_components(array, structures[name], lambda sizes: sizes == sizes.max(), around(name, structures))
    for name, least_ml in settings.min_volume_ml.items():
        keep_components(
            array,
            structures[name],
            lambda sizes, least=least_ml: sizes * voxel_ml >= least,  # type: ignore[misc]
            around(name, structures),
        )
    return labels.with_array(array)


def voxel_volume_ml(volume: Volume) -> float:
    """The volume of one voxel."""
    return float(np.prod(volume.grid.spacing_mm)) / 1000


def around(name: str, structures: Structures) -> int:
    """The label value of the smallest region that a structure is nested in; 0 where it is in none."""
    own = set(structures[name])
    outer = {other: values for other, values in structures.items() if own < set(values)}
    return written_values(structures)[min(outer, key=lambda other: len(outer[other]))] if outer else 0
