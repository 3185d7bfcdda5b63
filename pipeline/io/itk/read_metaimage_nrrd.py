"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): text that places voxels as ITK does, then the voxels.

Read here and not by ITK, which fills what a truncated file lacks with zeros and says nothing, and whose libraries are
larger than everything else that prediction needs.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.io.check_image_header import checked_grid, refuse_if_larger_than_memory
from pipeline.io.image_file_error import ImageFileError, truncated
from pipeline.io.image_header import ImageHeader
from pipeline.io.itk import metaimage_header, nrrd_header
from pipeline.io.itk.text_header import TextHeader

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DEFLATE_LIMIT = 1032
"""No deflate stream grows by more than this factor when it is unpacked."""
_PIECE = 2**22
TEXT_PIECE = 2**20
_LONGEST_WORD = 1000
NRRD = (".nrrd", ".nhdr")


def read_header(path: Path, kind: str) -> ImageHeader:
    """The header of a .nrrd, .nhdr, .mha or .mhd file; an ImageFileError where it cannot be used."""
    _refuse_missing_or_empty(path)
    try:
        described = (nrrd_header if kind in NRRD else metaimage_header).read_text_header(path)
    except (KeyError, ValueError, IndexError):
        raise ImageFileError(
            path, "bad-header", f"its header is damaged, or it is no {kind} file", "copy or download it again"
        ) from None
    except OSError as error:
        raise ImageFileError(
            path, "unreadable", f"it cannot be read ({error.strerror})", "check its permissions and its disk"
        ) from None
    spatial = described.spatial
    if len(spatial) not in (3, 4):
        raise ImageFileError(
            path,
            "not-3d",
            f"it has {len(spatial)} axes ({'×'.join(map(str, spatial))}), a scan has 3",
            "stack its slices into one volume",
        )
    affine = np.eye(4)
    affine[:3, :3] = described.direction * described.spacing
    affine[:3, 3] = described.origin
    placement = {
        "origin": described.origin,
        "spacing": described.spacing,
        "direction": tuple(described.direction.ravel()),
    }
    components = 1 if described.components is None else described.sizes[described.components]
    channels = components * (spatial[3] if len(spatial) == 4 else 1)
    fields = {"kind": kind, "itk": placement, "described": described}
    grid = checked_grid(path, spatial[:3], LPS_TO_RAS @ affine)
    header = ImageHeader(path, kind, grid, channels, described.dtype, (), fields, components)
    _refuse_false_promise(header, described)
    return header


def read_voxels(header: ImageHeader) -> NDArray[Any]:
    """The voxels as stored, (X, Y, Z) or (X, Y, Z, C); an ImageFileError where the file is damaged or too short."""
    refuse_if_larger_than_memory(header)
    described: TextHeader = header.fields["described"]
    flat = np.empty(described.bytes // described.dtype.itemsize, described.dtype)
    again = "copy or download it again"
    try:
        with described.voxels.open("rb") as stream:
            stream.seek(_start(described))
            if described.packing == "text":
                held = fill_with_words(flat, stream) * described.dtype.itemsize
            else:
                held = _fill(flat.view(np.uint8).data, _unpacked(stream, described))
    except EOFError:
        raise ImageFileError(
            header.path, "truncated", "its compressed data ends too early: it is truncated", again
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ImageFileError(header.path, "damaged", f"its compressed data is damaged ({error})", again) from None
    except (OSError, ValueError) as error:
        raise ImageFileError(header.path, "unreadable", f"its voxels cannot be read ({error})", again) from None
    if held < described.bytes:
        raise truncated(header.path, described.bytes, held)
    return _arranged(flat, described)


def fill_with_words(flat: NDArray[Any], stream: BinaryIO, piece_bytes: int = TEXT_PIECE) -> int:
    """Numbers written as text into `flat`, and how many there were; no more of the file is read than that takes."""
    held, rest = 0, b""
    while held < flat.size:
        piece = stream.read(piece_bytes)
        words = (rest + piece).split()
        rest = words.pop() if piece and words and not piece[-1:].isspace() else b""
        if len(rest) > _LONGEST_WORD:
            raise ValueError("what should be a number is longer than any")
        taken = words[: flat.size - held]
        flat[held : held + len(taken)] = taken
        held += len(taken)
        if not piece:
            break
    return held


def _unpacked(stream: BinaryIO, described: TextHeader) -> Iterator[bytes]:
    """The voxels' bytes in pieces; packed ones to their end, where the checksum is. EOFError where that is missing."""
    if described.packing == "zlib":
        yield from _inflated(stream)
        return
    source: Any = gzip.GzipFile(fileobj=stream) if described.packing == "gzip" else stream
    while piece := source.read(_PIECE):
        yield piece


def _inflated(stream: BinaryIO) -> Iterator[bytes]:
    unpack = zlib.decompressobj()
    while not unpack.eof and (piece := stream.read(_PIECE)):
        while piece:
            yield unpack.decompress(piece, _PIECE)
            piece = unpack.unconsumed_tail
    yield unpack.flush()
    if not unpack.eof:
        raise EOFError


def _fill(view: memoryview, pieces: Iterator[bytes]) -> int:
    """Copies pieces into `view`, as many as fit; returns how many bytes there were, up to one piece more than fit."""
    held = 0
    for piece in pieces:
        view[held : held + len(piece)] = piece[: max(len(view) - held, 0)]
        held += len(piece)
    return held


def _arranged(flat: NDArray[Any], described: TextHeader) -> NDArray[Any]:
    """(X, Y, Z), or (X, Y, Z, C): of a series of vectors, C counts all numbers of the first, then of the next."""
    array = flat.reshape(described.sizes, order="F")
    if described.components is not None:
        array = np.moveaxis(array, described.components, -1)
    if array.ndim > 3:
        array = array.reshape(*array.shape[:3], -1)
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def _start(described: TextHeader) -> int:
    size = described.voxels.stat().st_size
    return max(size - described.bytes, 0) if described.start is None else described.start


def _refuse_missing_or_empty(path: Path) -> None:
    if not path.is_file():
        raise ImageFileError(path, "missing-file", "there is no such file", "check the manifest's path and data.root")
    if path.stat().st_size == 0:
        raise ImageFileError(path, "empty-file", "the file is empty", "copy or download it again")


def _refuse_false_promise(header: ImageHeader, described: TextHeader) -> None:
    """By file size alone: more voxels than the file can hold."""
    held = max(described.voxels.stat().st_size - _start(described), 0)
    if described.packing == "raw" and described.bytes > held:
        raise truncated(header.path, described.bytes, held)
    if described.packing in {"gzip", "zlib"} and described.bytes > held * _DEFLATE_LIMIT:
        raise ImageFileError(
            header.path,
            "false-promise",
            f"its header promises {described.bytes:,} bytes of voxels, more than its {held:,} compressed bytes can "
            "hold",
            "the header or the file is damaged: copy or download it again",
        )
