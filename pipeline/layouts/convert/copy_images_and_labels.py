"""Copies of images and label maps into another layout: byte for byte where possible, else rewritten as NIfTI."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_write
from pipeline.io.grid_difference import grid_difference
from pipeline.io.image_file_names import image_ending
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label


def copy_channels(images: Sequence[Path], targets: Sequence[Path], resample: bool = False) -> bool:
    """Writes one file for each channel, from one file per channel or from one 4D file.

    Channels that lie on another grid than the first are resampled onto it where `resample` says so; else they are
    copied as they are where that can be, and True comes back. A DataError where a file cannot be used.
    """
    headers = [read_image_header(image) for image in images]
    if (count := sum(header.channels for header in headers)) != len(targets):
        raise DataError(f"has {count} channels, but the manifest declares {len(targets)}")
    apart = any(grid_difference(headers[0].grid, header.grid) for header in headers)
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    same_kind = all(_same_kind(image, image_ending(targets[0])) for image in images)
    if len(images) == len(targets) and same_kind and not (apart and resample):
        for image, target in zip(images, targets, strict=True):
            shutil.copyfile(image, target)
        return apart
    volume = read_image(images, resample)
    for channel, target in zip(volume.array, targets, strict=True):
        _write_image(target, channel, volume)
    return False


def copy_stack(images: Sequence[Path], target: Path, resample: bool = False) -> None:
    """Writes one NIfTI file: the only image as it is, several channels as 4D with the channel last.

    resample: channels on another grid than the first are brought onto it. A DataError where a file cannot be used.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if len(images) == 1 and _same_kind(images[0], ".nii.gz"):
        read_image_header(images[0])  # refuses what is no image
        shutil.copyfile(images[0], target)
        return
    volume = read_image(images, resample)
    array = volume.array[0] if len(volume.array) == 1 else np.moveaxis(volume.array, 0, -1)
    _write_image(target, array, volume)


def copy_label(label: Path, target: Path, values: Mapping[int, int]) -> None:
    """Copies a label map, its values replaced by `values` (empty: none are).

    Raises a DataError for a file that cannot be used, and for a value that `values` does not have where values have to
    be replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    ending = image_ending(target)
    if all(old == new for old, new in values.items()) and _same_kind(label, ending):
        read_image_header(label)  # refuses what is no image
        shutil.copyfile(label, target)
        return
    volume = read_label(label)
    if values and (undeclared := sorted({int(v) for v in np.unique(volume.array)} - {0, *values})):
        raise DataError(
            f"{label}: has undeclared label values {undeclared}, which would be mixed up with new ones; declare them"
        )
    array = volume.array.copy()
    for old, new in values.items():
        array[volume.array == old] = new
    write_label(target, volume.with_array(array))


def _same_kind(path: Path, ending: str) -> bool:
    return path.is_file() and path.name.lower().endswith(ending)


def _write_image(target: Path, array: np.ndarray, volume: Volume) -> None:
    image = nib.Nifti1Image(array, volume.grid.affine)
    image.header.set_xyzt_units("mm")
    atomic_write(target, lambda temporary: nib.save(image, temporary))
