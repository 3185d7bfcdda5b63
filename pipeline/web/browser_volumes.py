"""Volumes as a browser page shows them: voxels and grid alone, nothing else of a file's header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.packaging.label_metadata import Label
from pipeline.preprocessing.plan import ChannelPlan
from pipeline.reporting.intensity_window import Window

if TYPE_CHECKING:
    import nibabel as nib


def scan_name(channel: int) -> str:
    """The file that `write_viewer_volumes` writes for a channel."""
    return f"scan-{channel}.nii.gz"


OVERLAY = "overlay.nii.gz"


def write_viewer_volumes(folder: Path, image: Volume, segmentation: Volume, labels: Sequence[Label]) -> None:
    """Writes each channel of `image` (C, X, Y, Z), and the segmentation numbered as `overlay_values` says."""
    for number, channel in enumerate(image.array):
        plain_nifti(to_int16_if_lossless(channel), image.grid).to_filename(folder / scan_name(number))
    overlay = relabel(segmentation.array, [(value,) for value in overlay_values(labels)])
    plain_nifti(overlay, segmentation.grid).to_filename(folder / OVERLAY)


def overlay_values(labels: Sequence[Label]) -> list[int]:
    """Every label value of the structures, sorted: the i-th one, from 1, is i in the overlay."""
    return sorted({value for label in labels for value in label.values})


def relabel(labels: NDArray[Any], groups: Sequence[Sequence[int]]) -> NDArray[np.unsignedinteger[Any]]:
    """0 is background, i a voxel with a value of the i-th group.

    Where groups share a value, the smallest counts, so that a part is seen in its whole; of two as large, the later.
    """
    indices = np.zeros(labels.shape, np.min_scalar_type(len(groups)))
    for index, values in sorted(enumerate(groups, start=1), key=lambda group: -len(group[1])):
        indices[np.isin(labels, values)] = index
    return indices


def to_int16_if_lossless(channel: NDArray[np.float32]) -> NDArray[Any]:
    """The same values as int16 where they are whole numbers of its range (a CT is), else as they are."""
    limits = np.iinfo(np.int16)
    if not np.isfinite(channel).all() or channel.min() < limits.min or channel.max() > limits.max:
        return channel
    rounded = channel.astype(np.int16)
    return rounded if (rounded == channel).all() else channel


def planned_windows(channels: Sequence[ChannelPlan]) -> tuple[tuple[float, float] | None, ...]:
    """Per channel the intensities to show from black to white; None: each image's own."""
    windows = [Window.planned(channel) for channel in channels]
    return tuple(None if window is None else (window.lower, window.upper) for window in windows)


def plain_nifti(array: NDArray[Any], grid: Grid) -> nib.Nifti1Image:
    """An image of voxels and grid."""
    import nibabel as nib

    return nib.Nifti1Image(np.ascontiguousarray(array), grid.affine)
