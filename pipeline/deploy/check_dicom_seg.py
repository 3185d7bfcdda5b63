"""Check of a DICOM-SEG: each segment lies in patient coordinates where its mask does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.io.dicom.slice_order import LPS_TO_RAS
from pipeline.io.volume import Volume
from pipeline.packaging.label_metadata import Label

if TYPE_CHECKING:
    from pydicom import Dataset


def check_places(dataset: Dataset, segmentation: Volume, labels: Sequence[Label]) -> None:
    """DataError where a segment, read from the object in patient coordinates, does not lie where its mask does.

    Its centroid must be the mask's within a voxel, and, since a mirrored pair of kidneys has the centroid that it had,
    each of its pixels must lie in a voxel of the mask.
    """
    to_voxel = np.linalg.inv(segmentation.grid.affine)
    for number, label in enumerate(labels, 1):
        mask = np.isin(segmentation.array, label.values)
        total, count, right = np.zeros(3), 0, 0
        for points in _points_ras(dataset, number):
            total, count = total + points.sum(axis=0), count + len(points)
            right += int(_values_at(mask, points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).sum())
        voxels = np.argwhere(mask)
        expected = (segmentation.grid.affine @ [*voxels.mean(axis=0), 1.0])[:3]
        apart = float(np.linalg.norm(expected - total / count)) if count else np.inf
        if not apart <= max(segmentation.grid.spacing_mm):
            raise DataError(f"segment {label.name} would lie {apart:.1f} mm from its mask; nothing was written")
        if not right == count == len(voxels):
            raise DataError(
                f"segment {label.name}: {count - right} of its {count} pixels would lie outside its mask of "
                f"{len(voxels)} voxels; nothing was written"
            )


def _points_ras(dataset: Dataset, number: int) -> Iterator[NDArray[np.float64]]:
    """A segment's pixels (N, 3) in RAS+ mm, frame by frame, from nothing but what the object states."""
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if _group(dataset, groups, "SegmentIdentificationSequence").ReferencedSegmentNumber != number:
            continue
        position = np.array(_group(dataset, groups, "PlanePositionSequence").ImagePositionPatient, float)
        orientation = np.array(_group(dataset, groups, "PlaneOrientationSequence").ImageOrientationPatient, float)
        between_rows, between_columns = map(float, _group(dataset, groups, "PixelMeasuresSequence").PixelSpacing)
        rows, columns = np.nonzero(frame)
        along = np.outer(columns * between_columns, orientation[:3]) + np.outer(rows * between_rows, orientation[3:])
        yield (along + position) @ LPS_TO_RAS[:3, :3].T


def _group(dataset: Dataset, groups: Dataset, keyword: str) -> Dataset:
    """What is said of a frame: with the frame itself, or with all frames where they have it in common."""
    return (groups if keyword in groups else dataset.SharedFunctionalGroupsSequence[0])[keyword].value[0]


def _values_at(mask: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mask at points in voxels (N, 3), each in the voxel that it is nearest to; False outside the grid."""
    nearest = np.rint(points).astype(np.intp)
    inside = ((nearest >= 0) & (nearest < mask.shape)).all(axis=1)
    return mask[tuple(nearest[inside].T)]
