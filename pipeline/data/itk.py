"""NRRD and MetaImage through SimpleITK.

It fills what a truncated file lacks with zeros and says nothing, so bytes are counted first.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.geometry import Grid
from pipeline.data.header import FileFault, Header, checked_grid, refuse_if_larger_than_memory, truncated

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_LIMIT = 2**20
_DEFLATE_LIMIT = 1032


def read_header(path: Path, kind: str) -> Header:
    """The header of a .nrrd, .nhdr, .mha or .mhd file; a FileFault where it cannot be used."""
    import SimpleITK as sitk

    _refuse_missing_or_empty(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what is wrong is said by the fault
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if kind in {".nrrd", ".nhdr"} else "MetaImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise FileFault(
            path, "bad-header", f"its header is damaged, or it is no {kind} file", "copy or download it again"
        ) from None
    size = tuple(int(n) for n in reader.GetSize())
    if len(size) not in (3, 4):
        raise FileFault(
            path,
            "not-3d",
            f"it has {len(size)} axes ({'×'.join(map(str, size))}), a scan has 3",
            "stack its slices into one volume",
        )
    pixel = reader.GetPixelID()
    if "complex" in sitk.GetPixelIDValueAsString(pixel):
        raise FileFault(
            path,
            "complex",
            "its voxels are complex numbers",
            "write the magnitude (or real and imaginary part as two channels) as a new file",
        )
    channels = reader.GetNumberOfComponents() * (size[3] if len(size) == 4 else 1)
    dimension = len(size)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    placement = {
        "origin": reader.GetOrigin()[:3],
        "spacing": reader.GetSpacing()[:3],
        "direction": tuple(direction.ravel()),
    }
    grid = checked_grid(path, size[:3], _TO_RAS @ affine)
    header = Header(path, kind, grid, channels, _numpy_type(pixel), (), {"kind": kind, "itk": placement})
    _refuse_false_promise(header)
    return header


def read_voxels(header: Header) -> NDArray[Any]:
    """The voxels, (X, Y, Z) or (X, Y, Z, C)."""
    import SimpleITK as sitk

    refuse_if_larger_than_memory(header)
    _refuse_truncated(header)
    try:
        image = sitk.ReadImage(str(header.path))
    except RuntimeError:
        raise FileFault(
            header.path, "unreadable", "its voxels cannot be read: it is damaged", "copy or download it again"
        ) from None
    array = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 4:  # (T, Z, Y, X), or (T, Z, Y, X, C)
        if array.ndim == 5:
            array = np.moveaxis(array, -1, 1).reshape(-1, *array.shape[1:4])
        return array.transpose(3, 2, 1, 0) if len(array) > 1 else array[0].transpose(2, 1, 0)
    return array.transpose(2, 1, 0) if array.ndim == 3 else array.transpose(2, 1, 0, 3)


def write_label(path: Path, array: NDArray[Any], grid: Grid, placement: Any) -> None:
    """Writes a compressed file; `placement` gives back the input's own origin, spacing and direction."""
    import SimpleITK as sitk

    if placement is None:
        affine = _TO_RAS @ grid.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        placement = {
            "origin": tuple(affine[:3, 3]),
            "spacing": tuple(spacing),
            "direction": tuple((affine[:3, :3] / spacing).ravel()),
        }
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetOrigin([float(x) for x in placement["origin"]])
    image.SetSpacing([float(x) for x in placement["spacing"]])
    image.SetDirection([float(x) for x in placement["direction"]])
    sitk.WriteImage(image, str(path), useCompression=True)


def _numpy_type(pixel: int) -> np.dtype:
    import SimpleITK as sitk

    names = {"8-bit": "1", "16-bit": "2", "32-bit": "4", "64-bit": "8"}
    text = sitk.GetPixelIDValueAsString(pixel)
    kind = "u" if "unsigned" in text else "i" if "integer" in text else "f"
    width = next((size for bits, size in names.items() if bits in text), None)
    if kind == "f":
        width = width or ("8" if "double" in text else "4")
    return np.dtype(f"{kind}{width}")


def _refuse_missing_or_empty(path: Path) -> None:
    if not path.is_file():
        raise FileFault(path, "missing-file", "there is no such file", "check the manifest's path and data.root")
    if path.stat().st_size == 0:
        raise FileFault(path, "empty-file", "the file is empty", "copy or download it again")


def _text_header(path: Path) -> tuple[dict[str, str], int]:
    """The lower-case `key: value` or `key = value` lines of a header, and where the voxels begin in the file."""
    with path.open("rb") as stream:
        block = stream.read(_HEADER_LIMIT)
    fields: dict[str, str] = {}
    position = 0
    for raw in block.splitlines(keepends=True):
        position += len(raw)
        line = raw.decode("latin-1").strip()
        if not line and fields:
            break
        for mark in (":=", "=", ":"):
            key, found, value = line.partition(mark)
            if found:
                fields[key.strip().lower()] = value.strip()
                break
        if line.lower().startswith("elementdatafile"):
            break
    return fields, position


def _storage(path: Path) -> tuple[Path, int, str]:
    """The file that holds the voxels, where they begin, and how they are packed: raw, gzip, zlib or another word."""
    fields, position = _text_header(path)
    if "elementdatafile" in fields:
        packed = "zlib" if fields.get("compresseddata", "").lower() == "true" else "raw"
        place = fields["elementdatafile"]
        local = place.lower() == "local"
    else:
        packed = {"gz": "gzip"}.get(fields.get("encoding", "raw").lower(), fields.get("encoding", "raw").lower())
        place = fields.get("data file", fields.get("datafile", ""))
        local = not place
    if local:
        return path, position, packed
    voxels = path.parent / Path(place).name
    if Path(place).name != place.removeprefix("./") or not voxels.is_file():
        raise FileFault(
            path,
            "missing-file",
            f"its voxels are missing: it names the file {place!r}, which must lie beside it",
            "copy both files into one folder",
        )
    return voxels, 0, packed


def _refuse_false_promise(header: Header) -> None:
    """By file size alone: more voxels than the file can hold."""
    voxels, start, packed = _storage(header.path)
    held = voxels.stat().st_size - start
    if packed == "raw" and header.voxel_bytes > held:
        raise truncated(header.path, header.voxel_bytes, held)
    if packed in {"gzip", "zlib"} and header.voxel_bytes > held * _DEFLATE_LIMIT:
        raise FileFault(
            header.path,
            "false-promise",
            f"its header promises {header.voxel_bytes:,} bytes of voxels, more than its {held:,} compressed bytes can "
            "hold",
            "the header or the file is damaged: copy or download it again",
        )


def _refuse_truncated(header: Header) -> None:
    """Unpacks compressed voxels once to count them."""
    voxels, start, packed = _storage(header.path)
    if packed not in {"gzip", "zlib"}:
        return
    unpack = zlib.decompressobj(wbits=31 if packed == "gzip" else 15)
    held = 0
    with voxels.open("rb") as stream:
        stream.seek(start)
        try:
            while piece := stream.read(2**20):
                while piece:
                    held += len(unpack.decompress(piece, 2**24))
                    piece = unpack.unconsumed_tail
            held += len(unpack.flush())
        except zlib.error as error:
            raise FileFault(
                header.path, "damaged", f"its compressed data is damaged ({error})", "copy or download it again"
            ) from None
    if held < header.voxel_bytes or not unpack.eof:
        raise truncated(header.path, header.voxel_bytes, held)
