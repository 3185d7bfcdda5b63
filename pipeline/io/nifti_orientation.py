"""Orientation of NIfTI files: sform, qform, voxel sizes and units, and doubts about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError, bad_header
from pipeline.io.image_header import HeaderWarning

FORM_TOLERANCE_MM = 0.1
"""Corner distance up to which sform and qform count as equal; a quaternion in float32 is that exact."""
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""NIfTI's code of a length unit to its name and mm; anything else is taken as mm."""
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


def doubts_about_repairs(path: Path, stated: Any, nifti: Any) -> tuple[HeaderWarning, ...]:
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


def affine_of(path: Path, nifti: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], tuple[HeaderWarning, ...]]:
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
