"""NIfTI-1 and NIfTI-2 headers, of single files and pairs, interpreted by nibabel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pipeline.io.check_image_header import checked_grid
from pipeline.io.image_file_error import ImageFileError, bad_header
from pipeline.io.image_header import ImageHeader, split_shape
from pipeline.io.nifti_orientation import affine_of, doubts_about_repairs
from pipeline.io.raw_voxels import opened, refuse_false_promise

_quiet = logging.Logger("nibabel header checks", logging.CRITICAL + 1)


def read_header(path: Path, kind: str) -> ImageHeader:
    """The header of a .nii, .nii.gz or .hdr/.img file; an ImageFileError where it cannot be used."""
    if kind == ".img":
        return read_header(path.with_suffix(".hdr"), ".hdr")
    stated = _stated_header(path)
    nifti = _repaired(path, stated)
    shape = tuple(int(n) for n in nifti.get_data_shape())
    dtype = _number_type(path, nifti)
    spatial, channels = split_shape(path, shape)
    doubts = doubts_about_repairs(path, stated, nifti)
    affine, notes = affine_of(path, nifti, spatial)
    voxels = _partner(path) if kind == ".hdr" else path
    fields = {
        "kind": kind,
        "nifti": nifti,
        "offset": _offset(path, nifti, kind),
        "voxels": voxels,
        "scaling": _scaling(path, nifti),
    }
    header = ImageHeader(path, kind, checked_grid(path, spatial, affine), channels, dtype, (*doubts, *notes), fields)
    refuse_false_promise(header)
    return header


def _stated_header(path: Path) -> Any:
    """The header as its bytes are, unchecked."""
    with opened(path) as stream:
        block = stream.read(540)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if not block:
        raise ImageFileError(path, "empty-file", "the file is empty", "copy or download it again")
    if not sizes & {348, 540} or len(block) < min(sizes & {348, 540}):
        raise ImageFileError(
            path, "not-nifti", "it is not a NIfTI file (its header does not begin as one)", "convert it to NIfTI"
        )
    second = 540 in sizes
    magic = block[4:7] if second else block[344:347]
    if magic not in {b"n+1", b"ni1", b"n+2", b"ni2"}:
        raise ImageFileError(
            path,
            "analyze",
            "it is an Analyze 7.5 or damaged header without NIfTI's mark, so its orientation is unknown",
            "convert it to NIfTI with a tool that knows how it was made",
        )
    header_class = nib.Nifti2Header if second else nib.Nifti1Header
    return header_class(block[: 540 if second else 348], check=False)


def _repaired(path: Path, stated: Any) -> Any:
    """The header with what nibabel can repair repaired; `doubts_about_repairs` says what that was."""
    header = stated.copy()
    try:
        header.check_fix(logger=_quiet, error_level=40)
        header.get_data_shape()
    except HeaderDataError as error:
        raise bad_header(path, str(error)) from None
    return header


def _number_type(path: Path, nifti: Any) -> np.dtype:
    try:
        dtype = nifti.get_data_dtype()
    except HeaderDataError as error:
        raise bad_header(path, str(error)) from None
    if dtype.fields is not None:
        raise ImageFileError(
            path,
            "colour",
            "it holds colours (RGB), not one number a voxel",
            "convert it to grey values, or give the scan it was drawn from",
        )
    if dtype.kind == "c":
        raise ImageFileError(
            path,
            "complex",
            "its voxels are complex numbers",
            "write the magnitude (or real and imaginary part as two channels) as a new file",
        )
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise ImageFileError(
            path, "voxel-type", f"its voxel type {dtype} is not supported", "write it as float32 or int16"
        )
    return dtype


def _scaling(path: Path, nifti: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 means that there is none."""
    try:
        slope, intercept = nifti.get_slope_inter()
    except HeaderDataError as error:
        raise bad_header(path, str(error)) from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _offset(path: Path, nifti: Any, kind: str) -> int:
    if not np.isfinite(nifti["vox_offset"]):
        raise bad_header(path, "it does not say where its voxels begin")
    offset = int(nifti["vox_offset"])
    return offset if kind == ".hdr" else max(offset, int(nifti["sizeof_hdr"]) + 4)


def _partner(path: Path) -> Path:
    partner = path.with_suffix(".img")
    if not partner.is_file():
        raise ImageFileError(
            path,
            "missing-file",
            f"its voxels are missing: there is no {partner.name} beside it",
            "copy both files of the pair",
        )
    return partner
