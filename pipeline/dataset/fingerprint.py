"""The fingerprint: what a data set looks like as a whole. Planning decides from it, deployment compares with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dataset.loaded_cases import Cases
from pipeline.io.geometry import Grid


def fingerprint(cases: Cases) -> dict[str, Any]:
    """Medians and ranges over the training cases; intensities are means over cases of each case's percentiles."""
    training = cases.training()
    spacings = np.array([case.spacing_mm for case in training])
    shapes = np.array([case.shape for case in training])
    extents = spacings * shapes
    volumes = {
        name: [case.label_voxels.get(name, 0) * float(np.prod(case.spacing_mm)) / 1000 for case in training]
        for name in cases.structures
    }
    return {
        "n_cases": len(training),
        "orientations": sorted({case.orientation for case in training}),
        "tilt_degrees_max": max(Grid(case.shape, np.array(case.affine)).tilt_degrees for case in training),
        "spacings_mm": [list(case.spacing_mm) for case in training],
        "shapes": [list(case.shape) for case in training],
        "median_spacing_mm": np.median(spacings, axis=0).tolist(),
        "median_shape": np.median(shapes, axis=0).tolist(),
        "extent_mm": {
            "min": extents.min(0).tolist(),
            "median": np.median(extents, axis=0).tolist(),
            "max": extents.max(0).tolist(),
        },
        "anisotropy": float(np.median(spacings.max(axis=1) / spacings.min(axis=1))),
        "components": {
            name: {"median": float(np.median(pieces)), "max": max(pieces)}
            for name in cases.structures
            if (pieces := [c.label_components[name] for c in training if c.label_components.get(name)])
        },
        "structure_volumes_ml": {
            name: {"min": min(v), "median": float(np.median(v)), "max": max(v), "present": sum(x > 0 for x in v)}
            for name, v in volumes.items()
        },
        "intensity": [
            {
                "channel": channel.name,
                "modality": channel.modality,
                **_channel([case.intensity[i] for case in training]),
            }
            for i, channel in enumerate(cases.channels)
        ],
    }


def _channel(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each statistic over the cases that have it (an empty label has no foreground), and extremes."""
    keys = sorted(set().union(*rows))
    result = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
    for key in ("p005", "p995"):
        result[f"{key}_min"] = min(row[key] for row in rows)
        result[f"{key}_max"] = max(row[key] for row in rows)
    return result
