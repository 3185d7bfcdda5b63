"""MetaImage and NRRD label maps, written."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.itk import metaimage_header, nrrd_header
from pipeline.io.itk.read_metaimage_nrrd import LPS_TO_RAS, NRRD


def write_label(path: Path, array: NDArray[Any], grid: Grid, placement: Any) -> None:
    """Writes a compressed .mha or .nrrd; `placement` gives back the input's own origin, spacing and direction."""
    if placement is None:
        affine = LPS_TO_RAS @ grid.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        placement = {"origin": affine[:3, 3], "spacing": spacing, "direction": (affine[:3, :3] / spacing).ravel()}
    is_nrrd = path.suffix.lower() in NRRD
    pieces = _deflated(array.astype(array.dtype.newbyteorder("<"), copy=False), gzipped=is_nrrd)
    if is_nrrd:
        text = nrrd_header.make_label_header(array.shape, array.dtype, placement)
    else:
        text = metaimage_header.make_label_header(array.shape, array.dtype, placement, sum(map(len, pieces)))
    with path.open("wb") as stream:
        stream.write(text.encode())
        stream.writelines(pieces)


def _deflated(array: NDArray[Any], gzipped: bool) -> list[bytes]:
    """The voxels, x fastest, plane by plane: label maps become small, so that only one plane is held twice."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if gzipped else 15)
    pieces = [packer.compress(array[:, :, k].tobytes("F")) for k in range(array.shape[2])]
    return [*pieces, packer.flush()]
