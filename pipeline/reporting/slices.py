"""What a report shows of a case: three slices of every channel and both label maps, a small part of a large scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Spacing
from pipeline.reporting.intensity_window import percentile_range

_MARGIN_MM, _LEAST_MM = 12.0, 70.0

# Plane: (axis it is perpendicular to, letters at its left, right, top and bottom edges), radiological convention.
PLANES: dict[str, tuple[int, str]] = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class CaseVolumes:
    """One case in RAS+ orientation: image (C, X, Y, Z), label maps (X, Y, Z) of original values, voxel size."""

    image: NDArray[np.float32]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: Spacing


@dataclass(frozen=True)
class Slice:
    """One plane as a reader sees it: image (C, rows, columns), label maps (rows, columns), size of a pixel."""

    plane: str
    index: int
    image: NDArray[np.float32]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    pixel_mm: tuple[float, float]


@dataclass(frozen=True)
class Slices:
    """Three planes of a case. ranges: of each channel, the intensities that leave half a per cent out at either end."""

    planes: tuple[Slice, ...]
    ranges: tuple[tuple[float, float], ...]


def cut(scene: CaseVolumes) -> Slices:
    """Axial, coronal and sagittal slices, each where prediction and reference differ most, around the structures."""
    box = _box(scene)
    planes = []
    for plane, (axis, _) in PLANES.items():
        index = busiest_slice(scene.reference, scene.prediction, axis)
        place: list[slice | int] = list(box)
        place[axis] = index
        columns_mm, rows_mm = (scene.spacing_mm[a] for a in range(3) if a != axis)
        image = np.stack([_as_seen(channel[tuple(place)]) for channel in scene.image])
        reference, prediction = (_as_seen(labels[tuple(place)]) for labels in (scene.reference, scene.prediction))
        planes.append(Slice(plane, index, image, reference.copy(), prediction.copy(), (rows_mm, columns_mm)))
    return Slices(tuple(planes), tuple(percentile_range(channel[box]) for channel in scene.image))


def busiest_slice(reference: NDArray[np.integer], prediction: NDArray[np.integer], axis: int) -> int:
    """The index along `axis` with most differing voxels, else with most labelled ones, else the middle."""
    others = tuple(a for a in range(3) if a != axis)
    for counts in ((reference != prediction).sum(axis=others), (reference > 0).sum(axis=others)):
        if counts.any():
            return int(counts.argmax())
    return reference.shape[axis] // 2


def _box(scene: CaseVolumes) -> Box:
    """The labelled box with a margin, at least 70 mm wide where the image is."""
    labelled = (scene.reference > 0) | (scene.prediction > 0)
    slices = []
    for axis, (n, spacing) in enumerate(zip(labelled.shape, scene.spacing_mm, strict=True)):
        hit = np.flatnonzero(labelled.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if len(hit) else (0, n - 1)
        least = (_LEAST_MM / spacing - (last - first + 1)) / 2
        margin = int(np.ceil(max(_MARGIN_MM / spacing, least)))
        slices.append(slice(max(first - margin, 0), min(last + 1 + margin, n)))
    return slices[0], slices[1], slices[2]


def _as_seen(plane: NDArray) -> NDArray:
    """A RAS+ plane as rows and columns: first axis (right or anterior) runs leftwards, second one upwards."""
    return plane.T[::-1, ::-1]
