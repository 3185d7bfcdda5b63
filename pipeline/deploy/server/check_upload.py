"""Checks of an upload before it is segmented: its kind, its header and its size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import image_ending
from pipeline.io.read_image_header import read_image_header
from pipeline.preprocessing.plan import Plan

TAKEN = "NIfTI, .mha, .nrrd, or a zip of one DICOM series"

_HEADER_LIMIT = 2**20
_BYTES_A_VOXEL = 4  # the model computes in float32


def kind_of(path: Path) -> str:
    """The ending that a file's first bytes ask for; Refused (415) where they are none that is known."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".nii.gz"
    if head.startswith(b"NRRD"):
        return ".nrrd"
    if head.startswith((b"ObjectType", b"NDims")):
        return ".mha"
    if head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] == b"n+2\0":
        return ".nii"
    what = "is empty" if not head else "is of another kind"
    raise UploadRejected(415, f"the upload {what}; send {TAKEN}")


def check_headers(images: tuple[Path, ...], plan: Plan, most_bytes: int) -> None:
    """Raises an UploadRejected (422) where a header, the number of channels or the size does not suit the model."""
    try:
        headers = [read_image_header(path) for path in images]
    except ImageFileError as fault:
        raise UploadRejected(422, f"{fault.found}; {fault.cure}") from None
    names = [channel.name for channel in plan.channels]
    if (found := sum(header.channels for header in headers)) != len(names):
        raise UploadRejected(
            422, f"{found} channel(s) or time points; the model takes {len(names)}: {', '.join(names)}"
        )
    if (size := sum(header.voxel_bytes for header in headers)) > most_bytes:
        raise UploadRejected(413, f"{size:,} bytes of voxels by its header; at most {most_bytes:,} are taken")
    _, grid = to_canonical(headers[0].grid)
    extent_mm = np.array(grid.shape, float) * grid.spacing_mm
    planned_bytes = _BYTES_A_VOXEL * len(names) * float(np.prod(extent_mm / plan.spacing_mm))
    if planned_bytes > most_bytes:
        extent = " × ".join(f"{mm:,.0f}" for mm in extent_mm)
        what = f"its header says {extent} mm, which are {planned_bytes:,.0f} bytes at the model's voxel size"
        raise UploadRejected(413, f"{what}; at most {most_bytes:,} are taken: check its spacing")


def refuse_other_files(path: Path) -> None:
    """A header may say that its voxels lie in another file: any file of this machine, if it were believed."""
    ending = image_ending(path)
    if ending not in {".mha", ".nrrd"}:
        return
    with path.open("rb") as stream:
        head = stream.read(_HEADER_LIMIT)
    if ending == ".nrrd":
        whole = not re.search(rb"data ?file", re.split(rb"\n\r?\n", head, maxsplit=1)[0], re.IGNORECASE)
    else:
        named = re.findall(rb"(?i:elementdatafile)", head)
        whole = len(named) == 1 and re.search(rb"\nElementDataFile *= *(LOCAL|Local|local) *\r?\n", head) is not None
    if not whole:
        raise UploadRejected(422, "its voxels lie in another file; send one file with header and voxels")
