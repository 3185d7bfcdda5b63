"""FreeSurfer's MGH and MGZ, interpreted by nibabel."""

from __future__ import annotations

from pathlib import Path

from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError

from pipeline.io.check_image_header import checked_grid
from pipeline.io.image_file_error import ImageFileError, bad_header
from pipeline.io.image_header import ImageHeader, split_shape
from pipeline.io.raw_voxels import opened, refuse_false_promise

_VOXELS_BEGIN = 284
_SHORTEST = 90


def read_header(path: Path, kind: str) -> ImageHeader:
    """The header of a .mgh or .mgz file; an ImageFileError where it cannot be used. `raw_voxels.py` reads the rest."""
    with opened(path) as stream:
        block = stream.read(MGHHeader.template_dtype.itemsize)
    if not block:
        raise ImageFileError(path, "empty-file", "the file is empty", "copy or download it again")
    if len(block) < _SHORTEST:
        raise bad_header(path, "it ends within its header")
    try:
        mgh = MGHHeader(block.ljust(MGHHeader.template_dtype.itemsize, b"\0"), check=False)
        shape = tuple(int(n) for n in mgh.get_data_shape())
        dtype, affine = mgh.get_data_dtype(), mgh.get_affine()
    except (HeaderDataError, MGHError, KeyError, ValueError) as error:
        raise bad_header(path, str(error)) from None
    spatial, channels = split_shape(path, shape)
    fields = {"kind": kind, "offset": _VOXELS_BEGIN, "voxels": path, "scaling": (1.0, 0.0)}
    header = ImageHeader(path, kind, checked_grid(path, spatial, affine), channels, dtype, (), fields)
    refuse_false_promise(header)
    return header
