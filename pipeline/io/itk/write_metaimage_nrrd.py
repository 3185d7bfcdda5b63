"""MetaImage and NRRD label maps, written."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.itk.metaimage_header import spaced_numbers
from pipeline.io.itk.nrrd_header import vector_text
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
        text = nrrd_label_header(array.shape, array.dtype, placement)
    else:
        text = metaimage_label_header(array.shape, array.dtype, placement, sum(map(len, pieces)))
    with path.open("wb") as stream:
        stream.write(text.encode())
        stream.writelines(pieces)


def _deflated(array: NDArray[Any], gzipped: bool) -> list[bytes]:
    """The voxels, x fastest, plane by plane: label maps become small, so that only one plane is held twice."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if gzipped else 15)
    pieces = [packer.compress(array[:, :, k].tobytes("F")) for k in range(array.shape[2])]
    return [*pieces, packer.flush()]


def metaimage_label_header(
    shape: Sequence[int], dtype: np.dtype, placement: Mapping[str, Sequence[float]], held: int
) -> str:
    """The header of a label map whose `held` bytes of zlib data follow; `placement` as `TextHeader` has it."""
    direction = np.array(placement["direction"]).reshape(3, 3).T.ravel()
    types = {"u1": "MET_UCHAR", "u2": "MET_USHORT", "u4": "MET_UINT"}
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(held),
        "TransformMatrix": spaced_numbers(direction),
        "Offset": spaced_numbers(placement["origin"]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": spaced_numbers(placement["spacing"]),
        "DimSize": " ".join(map(str, shape)),
        "ElementType": types[dtype.str[1:]],
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def nrrd_label_header(shape: Sequence[int], dtype: np.dtype, placement: Mapping[str, Sequence[float]]) -> str:
    """The header of a label map whose gzip data follows; `placement` as `TextHeader` has it."""
    vectors = (np.array(placement["direction"]).reshape(3, 3) * placement["spacing"]).T
    types = {"u1": "unsigned char", "u2": "unsigned short", "u4": "unsigned int"}
    lines = {
        "type": types[dtype.str[1:]],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, shape)),
        "space directions": " ".join(map(vector_text, vectors)),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "gzip",
        "space origin": vector_text(placement["origin"]),
    }
    return "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n"
