"""Label maps written in the kind of file that their name asks for, atomically."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import atomic_write
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import ITK_ENDINGS, image_ending
from pipeline.io.itk import write_metaimage_nrrd
from pipeline.io.volume import Volume


def write_label(path: Path, volume: Volume) -> None:
    """Writes label values in the kind of file that `path` names, atomically.

    Grid, qform and sform with codes, units and description are those of the volume's header where it comes from a file
    of that family; the voxel type is the smallest unsigned one that holds the values; scl_slope is 1.
    """
    array = _smallest_unsigned(volume.array)
    ending = image_ending(path)
    if ending in ITK_ENDINGS and ending not in {".mhd", ".nhdr"}:
        atomic_write(path, lambda t: write_metaimage_nrrd.write_label(t, array, volume.grid, volume.header.get("itk")))
    elif ending in {".nii", ".nii.gz"}:
        from pipeline.io import write_nifti  # loads nibabel, which other kinds do not need

        original = volume.header.get("nifti")
        atomic_write(path, lambda t: write_nifti.write_label(t, ending, array, volume.grid, original))
    elif ending in {".hdr", ".img"}:
        _write_pair(path, array, volume)
    else:
        raise ImageFileError(
            path,
            "unknown-kind",
            "label maps are not written in this kind of file",
            "name it .nii.gz, .nii, .hdr, .img, .nrrd or .mha",
        )


def strip_description(volume: Volume) -> Volume:
    """The same without the description of its NIfTI header, which may name the patient."""
    if "nifti" not in volume.header:
        return volume
    header = volume.header["nifti"].copy()
    header["descrip"] = b""
    return Volume(volume.array, volume.grid, {**volume.header, "nifti": header})


def _smallest_unsigned(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iub" or (array.dtype.kind == "i" and array.min(initial=0) < 0):
        raise AssertionError(f"label maps hold non-negative whole numbers, not {array.dtype}")
    largest = int(array.max(initial=0))
    return array.astype(next(t for t in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(t).max), copy=False)


def _write_pair(path: Path, array: NDArray[Any], volume: Volume) -> None:
    """The header is renamed last: where it is, its voxels are."""
    from pipeline.io import write_nifti  # loads nibabel

    with tempfile.TemporaryDirectory(prefix=".pair-", dir=path.parent) as folder:
        header = Path(folder) / path.with_suffix(".hdr").name
        write_nifti.write_label(header, ".hdr", array, volume.grid, volume.header.get("nifti"))
        for name in (header.with_suffix(".img"), header):
            name.replace(path.parent / name.name)
