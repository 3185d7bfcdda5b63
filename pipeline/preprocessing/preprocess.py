"""From an image as it lies on disk to what the plan asks for: RAS+ axes, cropped, normalised, on the planned grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.dataset.foreground_box import Crop
from pipeline.dataset.label_encoding import ignore_index, labels_to_indices
from pipeline.io.canonical_orientation import AxisMap, to_canonical
from pipeline.io.geometry import Grid, resampled_grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.crop_to_nonzero import cropped, planned_crop
from pipeline.preprocessing.normalise import make_normaliser
from pipeline.preprocessing.plan import Plan
from pipeline.preprocessing.resample import Order, resample_bits, resample_classes, resample_image, resample_nearest


@dataclass(frozen=True)
class PreprocessedImage:
    """An image on the planned grid, and the way back.

    image: (C, X, Y, Z) float32, normalised. axis_map: from the file's axes to canonical ones. canonical: the whole
    image's grid in canonical axes. crop: the part of it that was kept. grid: the planned grid, over that part.
    """

    image: NDArray[np.float32]
    axis_map: AxisMap
    canonical: Grid
    crop: Crop
    grid: Grid


def preprocess(image: Volume, plan: Plan) -> PreprocessedImage:
    """Brings an image (C, X, Y, Z) onto the planned grid.

    Needs memory for the image, the result and, on another grid, one intermediate of about the result's size. Raises a
    DataError where the number of channels is not the plan's or a voxel is not finite.
    """
    if image.array.ndim != 4 or image.array.shape[0] != len(plan.channels):
        found = image.array.shape[0] if image.array.ndim == 4 else 1
        names = ", ".join(channel.name for channel in plan.channels)
        raise DataError(f"the image has {found} channels, but the plan needs {len(plan.channels)} ({names})")
    axis_map, canonical = to_canonical(image.grid)
    whole = axis_map.apply(image.array)
    crop = planned_crop(whole, plan)
    kept = whole[(slice(None), *crop)]
    grid = resampled_grid(cropped(canonical, crop), plan.spacing_mm)
    order: Order = 3 if plan.image_interpolation == "cubic" else 1
    result = np.empty((kept.shape[0], *grid.shape), np.float32)
    for i, channel in enumerate(plan.channels):
        resample_image(kept[i], grid.shape, order, make_normaliser(channel, kept[i]), out=result[i])
    return PreprocessedImage(result, axis_map, canonical, crop, grid)


def preprocess_label(
    label: Volume, plan: Plan, conformed: PreprocessedImage, grid_tolerance_mm: float = 0.0
) -> NDArray:
    """A label map of original values as indices (`pipeline.dataset.label_encoding`) on the grid of its conformed image.

    The label may lie along other axes than the image, but must cover the same voxels; else a DataError.
    grid_tolerance_mm: what its corners may be off, where that is more than half a voxel.
    """
    axis_map, canonical = to_canonical(label.grid)
    tolerance_mm = max(0.5 * min(conformed.canonical.spacing_mm), grid_tolerance_mm)
    if not canonical.close_to(conformed.canonical, tolerance_mm):
        raise DataError(
            f"the label map lies on another grid than its image (shape {canonical.shape} against "
            f"{conformed.canonical.shape}, {canonical.axcodes}); resample it onto the image's grid"
        )
    values = axis_map.apply(label.array)[conformed.crop]
    indices = np.stack(
        [labels_to_indices(rows, plan.structures, plan.ignore_value, plan.overlapping) for rows in values]
    )
    if indices.shape == conformed.grid.shape:
        return np.ascontiguousarray(indices)
    if plan.label_interpolation == "nearest":
        return np.ascontiguousarray(resample_nearest(indices, conformed.grid.shape))
    if not plan.overlapping:
        return resample_classes(indices, conformed.grid.shape)
    ignored = indices == ignore_index(plan.structures, plan.overlapping)
    result = resample_bits(np.where(ignored, 0, indices), conformed.grid.shape, len(plan.structures))
    if ignored.any():
        mark = ignore_index(plan.structures, plan.overlapping)
        result[resample_nearest(ignored, conformed.grid.shape)] = mark
    return result
