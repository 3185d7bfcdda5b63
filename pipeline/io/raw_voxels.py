"""Voxels as files store them: bytes after a header, often gzipped, read to their end and counted.

Read here and not by nibabel, so that a file that ends early, a wrong checksum and a header that promises more than
there is are found, whatever libraries are installed. All that can go wrong is an ImageFileError.
"""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.io.check_image_header import refuse_if_larger_than_memory
from pipeline.io.image_file_error import ImageFileError, truncated
from pipeline.io.image_header import ImageHeader

_DEFLATE_LIMIT = 1032
"""No deflate stream grows by more than this factor when it is unpacked."""
_BLOCK = 32


def read_voxels(header: ImageHeader) -> tuple[NDArray[Any], float, float]:
    """The voxels as stored, (X, Y, Z) or (X, Y, Z, C) in Fortran order, with slope and intercept to apply to them."""
    refuse_if_larger_than_memory(header)
    path, offset = header.fields["voxels"], header.fields["offset"]
    flat = np.empty(header.voxel_bytes // header.dtype.itemsize, header.dtype)
    with opened(path) as stream:
        _skip(stream, offset)
        view, held = flat.view(np.uint8).data, 0
        # gzip makes a copy of every piece, so pieces are small.
        while held < len(view) and (count := stream.readinto(view[held : held + 2**20])):  # type: ignore[attr-defined]
            held += count
        if held < len(view):
            raise truncated(path, len(view), held)
        while stream.read(2**20):  # to the end, where gzip keeps its checksum
            pass
    shape = (*header.grid.shape, header.channels) if header.channels > 1 else header.grid.shape
    slope, intercept = header.fields["scaling"]
    return flat.reshape(shape, order="F"), slope, intercept


def cache_blocks(shape: tuple[int, int, int]) -> Iterator[tuple[slice, ...]]:
    """Blocks of voxels that fit into a processor's cache: files run along x, arrays along z."""
    axes = [[slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)] for n in shape]
    return itertools.product(*axes)


def refuse_false_promise(header: ImageHeader) -> None:
    """Refuses, by the file's size alone, a header that promises more than its file can hold."""
    voxels = header.fields["voxels"]
    size = os.path.getsize(voxels)  # noqa: PTH202  (voxels may be a link; its target counts)
    held = max(size - header.fields["offset"], 0)
    limit = size * _DEFLATE_LIMIT if _is_gzip(voxels) else held
    if header.voxel_bytes > limit:
        if _is_gzip(voxels):
            raise ImageFileError(
                header.path,
                "false-promise",
                f"its header promises {header.voxel_bytes:,} bytes of voxels, more than its {size:,} compressed bytes "
                "can hold",
                "the header or the file is damaged: copy or download it again",
            )
        raise truncated(header.path, header.voxel_bytes, held)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked if compressed, whatever its name; all that can go wrong is an ImageFileError."""
    again = "copy or download it again (its source has the rest)"
    try:
        if _is_gzip(path):
            with gzip.open(path, "rb") as packed:
                yield packed  # type: ignore[misc]
        else:
            with path.open("rb") as plain:
                yield plain
    except FileNotFoundError:
        raise ImageFileError(
            path, "missing-file", "there is no such file", "check the manifest's path and data.root"
        ) from None
    except EOFError:
        raise ImageFileError(path, "truncated", "its compressed data ends too early: it is truncated", again) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImageFileError(path, "damaged", f"its compressed data is damaged ({error})", again) from None
    except OSError as error:
        raise ImageFileError(
            path, "unreadable", f"it cannot be read ({error.strerror or error})", "check the disk and the permissions"
        ) from None


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (piece := stream.read(min(count, 2**20))):
        count -= len(piece)
