"""NIfTI-1 and NIfTI-2, single files and pairs, and MGH: headers checked before any voxel is read.

The bytes are read here and not by nibabel, so that a file that ends early, a wrong checksum and a header that
promises more than there is are found, whatever libraries are installed. nibabel interprets the header.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pipeline.data.geometry import Grid
from pipeline.data.header import FileFault, Header, Note, checked_grid, refuse_if_larger_than_memory, truncated

FORM_TOLERANCE_MM = 0.1
"""Corner distance up to which sform and qform count as equal; a quaternion in float32 is that exact."""

_DEFLATE_LIMIT = 1032
"""No deflate stream grows by more than this factor when it is unpacked."""
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""NIfTI's code of a length unit to its name and mm; anything else is taken as mm."""
_CARRIED = (
    *("pixdim", "dim_info", "xyzt_units", "descrip", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Fields of the input's header that its label map gets: those that place voxels, and the description."""
_quiet = logging.Logger("nibabel header checks", logging.CRITICAL + 1)


def read_header(path: Path, kind: str) -> Header:
    """The header of a .nii, .nii.gz, .hdr/.img, .mgh or .mgz file; a FileFault where it cannot be used."""
    if kind in {".mgz", ".mgh"}:
        return _mgh_header(path, kind)
    if kind == ".img":
        return read_header(path.with_suffix(".hdr"), ".hdr")
    nifti = _nifti_header(path)
    shape = tuple(int(n) for n in nifti.get_data_shape())
    dtype = _number_type(path, nifti)
    spatial, channels = _split_shape(path, shape)
    affine, notes = _affine(path, nifti, spatial)
    voxels = _partner(path) if kind == ".hdr" else path
    fields = {
        "kind": kind,
        "nifti": nifti,
        "offset": _offset(nifti, kind),
        "voxels": voxels,
        "scaling": _scaling(path, nifti),
    }
    header = Header(path, kind, checked_grid(path, spatial, affine), channels, dtype, notes, fields)
    _refuse_false_promise(header, voxels)
    return header


def read_voxels(header: Header) -> tuple[NDArray[Any], float, float]:
    """The voxels as stored, (X, Y, Z) or (X, Y, Z, C) in Fortran order, with slope and intercept to apply to them."""
    refuse_if_larger_than_memory(header)
    path, offset = header.fields["voxels"], header.fields["offset"]
    flat = np.empty(header.voxel_bytes // header.dtype.itemsize, header.dtype)
    with _opened(path) as stream:
        _skip(stream, offset)
        view, held = flat.view(np.uint8).data, 0
        while held < len(view) and (count := stream.readinto(view[held : held + 2**24])):  # type: ignore[attr-defined]
            held += count
        if held < len(view):
            raise truncated(path, len(view), held)
        while stream.read(2**20):  # to the end, where gzip keeps its checksum
            pass
    shape = (*header.grid.shape, header.channels) if header.channels > 1 else header.grid.shape
    slope, intercept = header.fields["scaling"]
    return flat.reshape(shape, order="F"), slope, intercept


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
    with _opened(path) as stream:
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
        raise _bad_header(path, str(error)) from None
    return header


def _bad_header(path: Path, why: str) -> FileFault:
    return FileFault(
        path, "bad-header", f"its header is damaged: {why}", "copy it again, or write it anew from its source"
    )


def _number_type(path: Path, nifti: Any) -> np.dtype:
    try:
        dtype = nifti.get_data_dtype()
    except HeaderDataError as error:
        raise _bad_header(path, str(error)) from None
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


def _split_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Spatial shape and channels: the first three axes, and the one axis behind them that is longer than 1."""
    if len(shape) < 3:
        raise FileFault(
            path,
            "not-3d",
            f"it has {len(shape)} axes ({'×'.join(map(str, shape))}), a scan has 3",
            "stack its slices into one volume",
        )
    if min(shape) < 1:
        raise _bad_header(path, f"a shape of {'×'.join(map(str, shape))} has no voxels")
    further = [n for n in shape[3:] if n > 1]
    if len(further) > 1:
        raise FileFault(
            path,
            "not-3d",
            f"it has {len(shape)} axes ({'×'.join(map(str, shape))}); a scan has 3 and one for its channels",
            "split it into one file per channel",
        )
    return shape[:3], further[0] if further else 1


def _affine(path: Path, nifti: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], tuple[Note, ...]]:
    """The affine by the policy of docs/definitions.md: sform where its code is set, else qform, else voxel sizes."""
    notes = []
    try:
        affine = np.asarray(nifti.get_best_affine(), dtype=np.float64)
        qform, sform = nifti.get_qform(coded=True)[0], nifti.get_sform(coded=True)[0]
    except (HeaderDataError, ValueError, ZeroDivisionError) as error:
        raise _bad_header(path, str(error)) from None
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
        raise _bad_header(path, str(error)) from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _offset(nifti: Any, kind: str) -> int:
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


def _mgh_header(path: Path, kind: str) -> Header:
    from nibabel.freesurfer.mghformat import MGHError, MGHHeader

    with _opened(path) as stream:
        block = stream.read(MGHHeader.template_dtype.itemsize)
    if not block:
        raise FileFault(path, "empty-file", "the file is empty", "copy or download it again")
    if len(block) < 90:
        raise _bad_header(path, "it ends within its header")
    try:
        mgh = MGHHeader(block.ljust(MGHHeader.template_dtype.itemsize, b"\0"), check=False)
        shape = tuple(int(n) for n in mgh.get_data_shape())
        dtype, affine = mgh.get_data_dtype(), mgh.get_affine()
    except (HeaderDataError, MGHError, KeyError, ValueError) as error:
        raise _bad_header(path, str(error)) from None
    spatial, channels = _split_shape(path, shape)
    fields = {"kind": kind, "offset": 284, "voxels": path, "scaling": (1.0, 0.0)}
    header = Header(path, kind, checked_grid(path, spatial, affine), channels, dtype, (), fields)
    _refuse_false_promise(header, path)
    return header


def _refuse_false_promise(header: Header, voxels: Path) -> None:
    """A header that promises more than its file can hold is refused by the file's size alone."""
    size = os.path.getsize(voxels)  # noqa: PTH202  (voxels may be a link; its target counts)
    held = max(size - header.fields["offset"], 0)
    limit = size * _DEFLATE_LIMIT if _is_gzip(voxels) else held
    if header.voxel_bytes > limit:
        if _is_gzip(voxels):
            raise FileFault(
                header.path,
                "false-promise",
                f"its header promises {header.voxel_bytes:,} bytes of voxels, more than its {size:,} compressed bytes "
                "can hold",
                "the header or the file is damaged: copy or download it again",
            )
        raise truncated(header.path, header.voxel_bytes, held)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is compressed, whatever its name; all that can go wrong is a FileFault."""
    again = "copy or download it again (its source has the rest)"
    try:
        if _is_gzip(path):
            with gzip.open(path, "rb") as packed:
                yield packed  # type: ignore[misc]
        else:
            with path.open("rb") as plain:
                yield plain
    except FileNotFoundError:
        raise FileFault(
            path, "missing-file", "there is no such file", "check the manifest's path and data.root"
        ) from None
    except EOFError:
        raise FileFault(path, "truncated", "its compressed data ends too early: it is truncated", again) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileFault(path, "damaged", f"its compressed data is damaged ({error})", again) from None
    except OSError as error:
        raise FileFault(
            path, "unreadable", f"it cannot be read ({error.strerror or error})", "check the disk and the permissions"
        ) from None


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (piece := stream.read(min(count, 2**20))):
        count -= len(piece)
