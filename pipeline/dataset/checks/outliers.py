"""Outlier cases: structures of another size and fields of view unlike all others.

Judged by median and median absolute deviation of logarithms, so that neither one bad case nor a wide natural spread
(tumours) moves the limit; both a factor and a distance must be passed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.checks.faults import Fault
from pipeline.dataset.manifest import Manifest
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid

FEWEST = 5
"""Cases that are needed before one of them can be called unlike the others."""
_LABEL_FACTOR, _EXTENT_FACTOR = 5.0, 5.0
_VOXEL_FACTOR = 4.0
"""Of the voxels of a doubtful field of view: scans are of a chest or of a whole body, with voxels like the others'."""
_BODY_AXES = ("left–right", "front–back", "head–feet")
_DEVIATIONS, _SMALLEST_DEVIATION = 4.0, 0.15

Measured = Mapping[str, Any]


def label_outliers(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
    """A structure far larger or smaller than it usually is."""
    for name in manifest.structures:
        have = [case for case in measured if case.get("label_voxels", {}).get(name)]
        volumes_ml = [case["label_voxels"][name] * float(np.prod(case["spacing_mm"])) / 1000 for case in have]
        for i, usual in outliers(volumes_ml, _LABEL_FACTOR):
            times = volumes_ml[i] / usual
            size = f"{times:.1f} times" if times > 1 else f"1/{1 / times:.0f} of"
            yield Fault(
                have[i]["id"],
                have[i]["label"],
                "warning",
                "label-outlier",
                f"{name} has {volumes_ml[i]:.3g} ml, {size} its usual {usual:.3g} ml",
                "look at the label map; correct it, or leave it if the structure is so",
            )


def extent_outliers(measured: Sequence[Measured]) -> Iterator[Fault]:
    """A field of view unlike the others along an axis of the body, by its voxels: another unit, or a wrong spacing."""
    grids = [to_canonical(Grid(tuple(case["shape"]), np.array(case["affine"])))[1] for case in measured]
    voxels_mm = np.array([grid.spacing_mm for grid in grids]).reshape(-1, 3)
    extents_mm = voxels_mm * np.array([grid.shape for grid in grids]).reshape(-1, 3)
    off: dict[int, dict[str, float]] = defaultdict(dict)
    for axis, name in enumerate(_BODY_AXES):
        for i, usual_mm in outliers(extents_mm[:, axis], _EXTENT_FACTOR):
            times = extents_mm[i, axis] / usual_mm
            voxel_times = voxels_mm[i, axis] / float(np.median(voxels_mm[:, axis]))
            if (voxel_times if times > 1 else 1 / voxel_times) >= _VOXEL_FACTOR:
                off[i][name] = times
    for i, times_along in sorted(off.items()):
        extent, voxel = ("×".join(f"{x:.4g}" for x in lengths[i]) for lengths in (extents_mm, voxels_mm))
        times_each = ", ".join(f"{times:.2g}" for times in times_along.values())
        yield Fault(
            measured[i]["id"],
            measured[i]["images"][0],
            "warning",
            "extent",
            f"its field of view of {extent} mm (in voxels of {voxel} mm) is {times_each} times that of other cases, "
            f"{', '.join(times_along)}",
            "check its voxel size, and that it is in mm",
        )


def outliers(values: Sequence[float] | NDArray, factor: float) -> Iterator[tuple[int, float]]:
    """Index of each positive value that lies off the others by `factor` and many deviations, and the usual value."""
    logs = np.log(np.maximum(np.asarray(values, dtype=np.float64), 1e-12))
    if len(logs) < FEWEST:
        return
    centre = float(np.median(logs))
    deviation = max(1.4826 * float(np.median(np.abs(logs - centre))), _SMALLEST_DEVIATION)
    for i in np.flatnonzero(np.abs(logs - centre) > max(np.log(factor), _DEVIATIONS * deviation)):
        yield int(i), float(np.exp(centre))
