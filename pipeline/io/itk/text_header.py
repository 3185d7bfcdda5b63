"""What a MetaImage or NRRD file says in the text before its voxels: one value for both kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.io.image_file_error import ImageFileError

Packing = Literal["raw", "zlib", "gzip", "text"]
_LONGEST_HEADER, _LONGEST_AXIS = 2**20, 2**31


@dataclass(frozen=True)
class TextHeader:
    """Axes in the order of the file, the fastest first; origin and directions in LPS mm, as ITK has them.

    components: the axis that counts the numbers of one voxel, None where a voxel is one number. direction: the columns
    are the unit vectors of x, y, z. start: where the voxels begin in their file, None where they are its last bytes.
    """

    sizes: tuple[int, ...]
    components: int | None
    dtype: np.dtype
    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: NDArray[np.float64]
    voxels: Path
    start: int | None
    packing: Packing

    @property
    def spatial(self) -> tuple[int, ...]:
        """Lengths of the axes that are no components."""
        return tuple(n for axis, n in enumerate(self.sizes) if axis != self.components)

    @property
    def bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return math.prod(self.sizes) * self.dtype.itemsize


def header_lines(path: Path, is_last: Callable[[str], bool]) -> tuple[list[str], int]:
    """The stripped lines up to the first that `is_last`, or to the end of the file, and where they end."""
    with path.open("rb") as stream:
        block = stream.read(_LONGEST_HEADER)
    lines: list[str] = []
    end = 0
    for raw in block.splitlines(keepends=True):
        end += len(raw)
        lines.append(raw.decode("latin-1").strip())
        if is_last(lines[-1]):
            break
    return lines, end


def data_file(path: Path, name: str) -> Path:
    """The file with the voxels, which a header names; an ImageFileError where it does not lie beside the header."""
    voxels = path.parent / Path(name).name
    if Path(name).name != name.removeprefix("./") or not voxels.is_file():
        raise ImageFileError(
            path,
            "missing-file",
            f"its voxels are missing: it names the file {name!r}, which must lie beside it",
            "copy both files into one folder",
        )
    return voxels


def numbers(text: str, count: int) -> tuple[float, ...]:
    """`count` numbers between spaces; a ValueError where there are others."""
    values = tuple(float(word) for word in text.split())
    if len(values) != count:
        raise ValueError(f"{len(values)} numbers where {count} are due")
    return values


def lengths(text: str, count: int) -> tuple[int, ...]:
    """`count` lengths of axes; a ValueError where there are others, or one is no length."""
    values = tuple(int(word) for word in text.split())
    if len(values) != count or min(values) < 1 or max(values) > _LONGEST_AXIS:
        raise ValueError(f"axes of {text} voxels where {count} are due")
    return values
