"""NIfTI label maps, written with what places the voxels of their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
from numpy.typing import NDArray

from pipeline.io.geometry import Grid

_CARRIED = (
    *("pixdim", "dim_info", "xyzt_units", "descrip", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Fields of the input's header that its label map gets: those that place voxels, and the description."""


def write_label(path: Path, kind: str, array: NDArray[Any], grid: Grid, original: Any) -> None:
    """Writes an unsigned integer array; `original`, the input's NIfTI header, gives back its forms, units and text."""
    second = original is not None and int(original["sizeof_hdr"]) == 540
    pair = kind in {".hdr", ".img"}
    image_class = {
        (False, False): nib.Nifti1Image,
        (False, True): nib.Nifti1Pair,
        (True, False): nib.Nifti2Image,
        (True, True): nib.Nifti2Pair,
    }[second, pair]
    if original is None:
        image = image_class(array, grid.affine)
        image.set_qform(grid.affine, code=1)
        image.set_sform(grid.affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        header = image_class.header_class()
        for name in _CARRIED:
            header[name] = original[name]
        header.set_data_dtype(array.dtype)
        header["pixdim"][4:] = 0
        image = image_class(array, None, header, dtype=array.dtype)
    image.header.set_slope_inter(1, 0)
    image.to_filename(path)
