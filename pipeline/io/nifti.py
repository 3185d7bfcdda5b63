"""NIfTI-1 and NIfTI-2, single files and pairs, interpreted by nibabel: headers checked before any voxel is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError, bad_header
from pipeline.io.image_header import HeaderWarning, ImageHeader, checked_grid, split_shape
from pipeline.io.raw_voxels import opened, refuse_false_promise

FORM_TOLERANCE_MM = 0.1
"""Corner distance up to which sform and qform count as equal; a quaternion in float32 is that exact."""

_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""NIfTI's code of a length unit to its name and mm; anything else is taken as mm."""
_CARRIED = (
    *("pixdim", "dim_info", "xyzt_units", "descrip", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Fields of the input's header that its label map gets: those that place voxels, and the description."""
_NO_ORIENTATION = HeaderWarning(
    "no-orientation",
    "neither sform nor qform is set, so left and right cannot be told; the x axis is taken to run from right to left, "
    "as older software wrote it",
    "compare it with its source, and set the sform",
)
_BAD_QFORM = HeaderWarning(
    "bad-qform",
    "its qform is set, but its numbers place no voxels; the sform is used",
    "set the qform to what the sform says, since other programs may take the qform",
)
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
    doubts = _doubts_about_repairs(path, stated, nifti)
    affine, notes = _affine(path, nifti, spatial)
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
    """The header with what nibabel can repair repaired; `_doubts_about_repairs` says what that was."""
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


def _doubts_about_repairs(path: Path, stated: Any, nifti: Any) -> tuple[HeaderWarning, ...]:
    """What was repaired of the fields that place voxels; an ImageFileError where only a guess would place them."""
    notes = []
    by_sform, by_qform = bool(nifti["sform_code"]), bool(nifti["qform_code"])
    if not np.array_equal(stated["pixdim"][1:4], nifti["pixdim"][1:4], equal_nan=True):
        sizes = "×".join(f"{x:g}" for x in stated["pixdim"][1:4])
        found = f"its header gives voxel sizes (pixdim) of {sizes}, where each must be above 0"
        cure = "write the voxel sizes of its source into pixdim"
        if not by_sform:
            raise ImageFileError(path, "voxel-size", f"{found}, and no sform places its voxels", cure)
        notes.append(
            HeaderWarning("voxel-size", f"{found}; the sform is used", f"{cure}, since other programs may use it")
        )
    unknown = [name for name in ("qform_code", "sform_code") if stated[name] != nifti[name]]
    if unknown:
        found = f"its {' and '.join(f'{name} {int(stated[name])}' for name in unknown)} is none that NIfTI has (0 to 5)"
        cure = "compare it with its source, and set the code of the form that is right (1: as scanned)"
        if not by_sform and not by_qform:
            raise ImageFileError(path, "unknown-form", f"{found}, and nothing else says how it is oriented", cure)
        used = "sform" if by_sform else "qform"
        notes.append(HeaderWarning("unknown-form", f"{found}, which counts as not set; the {used} is used", cure))
    return tuple(notes)


def _affine(path: Path, nifti: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], tuple[HeaderWarning, ...]]:
    """The affine by the policy of docs/definitions.md: sform where its code is set, else qform, else voxel sizes."""
    sform, qform, notes = nifti.get_sform(coded=True)[0], None, list[HeaderWarning]()
    try:
        qform = nifti.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError, ZeroDivisionError) as error:
        if sform is None:
            raise bad_header(path, str(error)) from None
        notes.append(_BAD_QFORM)
    affine = np.asarray(nifti.get_best_affine(), dtype=np.float64)
    name, unit_mm = _UNITS.get(int(nifti["xyzt_units"]) & 7, ("mm", 1.0))
    notes += _doubts_about_forms(sform, qform, shape, unit_mm)
    if unit_mm != 1.0:
        notes.append(
            HeaderWarning(
                "units",
                f"its lengths are in {name}; they are converted to mm",
                "write it in mm, since many programs do not look at the unit",
            )
        )
        affine = np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ affine
    return affine, tuple(notes)


def _doubts_about_forms(
    sform: NDArray[Any] | None, qform: NDArray[Any] | None, shape: tuple[int, ...], unit_mm: float
) -> list[HeaderWarning]:
    """Forms (None: not set) that leave the orientation open or contradict each other; their unit is `unit_mm` long."""
    if sform is None and qform is None:
        return [_NO_ORIENTATION]
    if sform is None or qform is None or not np.isfinite(sform).all():
        return []
    if not np.isfinite(qform).all():
        return [_BAD_QFORM]
    x, y, z = (int(n) for n in shape)
    apart_mm = unit_mm * Grid((x, y, z), sform).distance_mm(Grid((x, y, z), qform))
    if apart_mm <= FORM_TOLERANCE_MM:
        return []
    found = (
        f"its sform and qform disagree by up to {apart_mm:.2f} mm; the sform is used, other programs may take the qform"
    )
    return [HeaderWarning("forms-disagree", found, "find out which is right and set both to it")]


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
