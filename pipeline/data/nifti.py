"""NIfTI-1 and NIfTI-2, single files and pairs, interpreted by nibabel: headers checked before any voxel is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pipeline.data.geometry import Grid
from pipeline.data.header import FileFault, Header, Note, checked_grid
from pipeline.data.stored import bad_header, opened, refuse_false_promise, split_shape

FORM_TOLERANCE_MM = 0.1
"""Corner distance up to which sform and qform count as equal; a quaternion in float32 is that exact."""

_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""NIfTI's code of a length unit to its name and mm; anything else is taken as mm."""
_CARRIED = (
    *("pixdim", "dim_info", "xyzt_units", "descrip", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Fields of the input's header that its label map gets: those that place voxels, and the description."""
_quiet = logging.Logger("nibabel header checks", logging.CRITICAL + 1)


def read_header(path: Path, kind: str) -> Header:
    """The header of a .nii, .nii.gz or .hdr/.img file; a FileFault where it cannot be used."""
    if kind == ".img":
        return read_header(path.with_suffix(".hdr"), ".hdr")
    nifti = _nifti_header(path)
    shape = tuple(int(n) for n in nifti.get_data_shape())
    dtype = _number_type(path, nifti)
    spatial, channels = split_shape(path, shape)
    affine, notes = _affine(path, nifti, spatial)
    voxels = _partner(path) if kind == ".hdr" else path
    fields = {
        "kind": kind,
        "nifti": nifti,
        "offset": _offset(path, nifti, kind),
        "voxels": voxels,
        "scaling": _scaling(path, nifti),
    }
    header = Header(path, kind, checked_grid(path, spatial, affine), channels, dtype, notes, fields)
    refuse_false_promise(header)
    return header


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


def _nifti_header(path: Path) -> Any:
    with opened(path) as stream:
        block = stream.read(540)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if not block:
        raise FileFault(path, "empty-file", "the file is empty", "copy or download it again")
    if not sizes & {348, 540} or len(block) < min(sizes & {348, 540}):
        raise FileFault(
            path, "not-nifti", "it is not a NIfTI file (its header does not begin as one)", "convert it to NIfTI"
        )
    second = 540 in sizes
    magic = block[4:7] if second else block[344:347]
    if magic not in {b"n+1", b"ni1", b"n+2", b"ni2"}:
        raise FileFault(
            path,
            "analyze",
            "it is an Analyze 7.5 or damaged header without NIfTI's mark, so its orientation is unknown",
            "convert it to NIfTI with a tool that knows how it was made",
        )
    header_class = nib.Nifti2Header if second else nib.Nifti1Header
    header = header_class(block[: 540 if second else 348], check=False)
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
        raise FileFault(
            path,
            "colour",
            "it holds colours (RGB), not one number a voxel",
            "convert it to grey values, or give the scan it was drawn from",
        )
    if dtype.kind == "c":
        raise FileFault(
            path,
            "complex",
            "its voxels are complex numbers",
            "write the magnitude (or real and imaginary part as two channels) as a new file",
        )
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise FileFault(path, "voxel-type", f"its voxel type {dtype} is not supported", "write it as float32 or int16")
    return dtype


def _affine(path: Path, nifti: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], tuple[Note, ...]]:
    """The affine by the policy of docs/definitions.md: sform where its code is set, else qform, else voxel sizes."""
    notes = []
    try:
        affine = np.asarray(nifti.get_best_affine(), dtype=np.float64)
        qform, sform = nifti.get_qform(coded=True)[0], nifti.get_sform(coded=True)[0]
    except (HeaderDataError, ValueError, ZeroDivisionError) as error:
        raise bad_header(path, str(error)) from None
    if qform is None and sform is None:
        notes.append(
            Note(
                "no-orientation",
                "neither sform nor qform is set, so left and right cannot be told; the x axis is taken to run from "
                "right to left, as older software wrote it",
                "compare it with its source, and set the sform",
            )
        )
    if qform is not None and sform is not None and np.isfinite(sform).all() and np.isfinite(qform).all():
        x, y, z = (int(n) for n in shape)
        apart_mm = Grid((x, y, z), sform).distance_mm(Grid((x, y, z), qform))
        if apart_mm > FORM_TOLERANCE_MM:
            notes.append(
                Note(
                    "forms-disagree",
                    f"its sform and qform disagree by up to {apart_mm:.2f} mm; the sform is used, other programs may "
                    "take the qform",
                    "find out which is right and set both to it",
                )
            )
    name, unit_mm = _UNITS.get(int(nifti["xyzt_units"]) & 7, ("mm", 1.0))
    if unit_mm != 1.0:
        notes.append(
            Note(
                "units",
                f"its lengths are in {name}; they are converted to mm",
                "write it in mm, since many programs do not look at the unit",
            )
        )
        affine = np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ affine
    return affine, tuple(notes)


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
        raise FileFault(
            path,
            "missing-file",
            f"its voxels are missing: there is no {partner.name} beside it",
            "copy both files of the pair",
        )
    return partner
