"""NRRD's header (.nrrd, .nhdr): lines of `field: value` (teem.sourceforge.net/nrrd/format.html), read as ITK does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.io.image_file_error import ImageFileError
from pipeline.io.itk.text_header import Packing, TextHeader, data_file, header_lines, lengths, numbers

_TYPES = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_PACKINGS: dict[str, Packing] = {"raw": "raw", "gz": "gzip", "gzip": "gzip"}
_PACKINGS |= {"txt": "text", "text": "text", "ascii": "text"}
_TO_LPS = {"right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1)}
_TO_LPS |= {"left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)}
"""What turns a space that begins with these words into LPS; all others are taken as that."""
_PLACES = {"domain", "space", "time", "???", "none"}
"""Kinds of an axis along which voxels lie; along an axis of any other kind lie the numbers of one voxel."""
_VECTOR = re.compile(r"none|\(([^)]*)\)")


def read_text_header(path: Path) -> TextHeader:
    """What the header of a .nrrd or .nhdr file says; KeyError or ValueError where it makes no sense."""
    lines, end = header_lines(path, lambda line: not line)
    if not lines[0].startswith("NRRD000"):
        raise ValueError("it does not begin as NRRD")
    said = (line.partition(":") for line in lines[1:] if not line.startswith("#") and ":=" not in line)
    fields = {key.strip().lower(): value.strip() for key, found, value in said if found}
    count = int(fields["dimension"])
    sizes, components = lengths(fields["sizes"], count), _components(path, fields, count)
    origin, spacing, direction = _placement(fields, count, components)
    name = fields.get("data file", fields.get("datafile", ""))
    voxels = data_file(path, name) if name else path
    packing = _packing(path, fields)
    return TextHeader(
        sizes=sizes,
        components=components,
        dtype=np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + _type(path, fields)),
        origin=origin,
        spacing=spacing,
        direction=direction,
        voxels=voxels,
        start=_start(voxels, 0 if name else end, fields),
        packing=packing,
    )


def _components(path: Path, fields: Mapping[str, str], count: int) -> int | None:
    """The axis whose kind, or missing direction, says that the numbers of one voxel lie along it."""
    kinds = [kind.lower() for kind in fields["kinds"].split()] if "kinds" in fields else ["domain"] * count
    if "complex" in kinds:
        raise ImageFileError(
            path,
            "complex",
            "its voxels are complex numbers",
            "write the magnitude (or real and imaginary part as two channels) as a new file",
        )
    if colour := [kind for kind in kinds if kind.endswith("-color")]:
        raise ImageFileError(
            path,
            "colour",
            f"it holds colours ({colour[0]}), not one number a voxel",
            "convert it to grey values, or give the scan it was drawn from",
        )
    directions = _VECTOR.finditer(fields.get("space directions", ""))
    placeless = {axis for axis, found in enumerate(directions) if found[0] == "none"}
    found = [axis for axis, kind in enumerate(kinds) if kind not in _PLACES or axis in placeless]
    if len(kinds) != count or len(found) > 1:
        raise ValueError("its axes are not told apart")
    return found[0] if found else None


def _placement(
    fields: Mapping[str, str], count: int, components: int | None
) -> tuple[tuple[float, ...], tuple[float, ...], np.ndarray]:
    """Origin, spacing and direction of the first three axes along which voxels lie, in LPS mm."""
    axes = [axis for axis in range(count) if axis != components][:3]
    if "space directions" not in fields:
        spacing = np.array(numbers(fields.get("spacings", "1 " * count), count))[axes]
        origin = np.zeros(len(axes))
        if "axis mins" in fields:  # where an axis begins: at the edge of its first voxel, unless voxels are nodes
            nodes = "node" in fields.get("centers", fields.get("centerings", ""))
            origin = np.array(numbers(fields["axis mins"], count))[axes] + (0 if nodes else spacing / 2)
        return tuple(origin), tuple(spacing), np.eye(len(axes))
    found = [match[1] for match in _VECTOR.finditer(fields["space directions"])]
    vectors = np.array([_read_vector(found[axis]) for axis in axes])
    origin = np.array(_read_vector(fields.get("space origin", "0,0,0").strip("()")))
    space = fields.get("space", "").lower()
    flips = np.array(next((flip for begin, flip in _TO_LPS.items() if space.startswith(begin)), (1, 1, 1)))
    spacing = np.linalg.norm(vectors, axis=1)
    with np.errstate(invalid="ignore"):  # a vector of zeros is refused with the affine
        direction = (vectors * flips / spacing[:, None]).T
    return tuple(origin * flips), tuple(spacing), direction


def _read_vector(text: str | None) -> tuple[float, ...]:
    """The first three numbers; those of a plane get a third, 0."""
    values = tuple(float(word) for word in (text or "").split(","))
    return (*values, 0.0)[:3]


def _type(path: Path, fields: Mapping[str, str]) -> str:
    name = fields["type"].lower()
    if name == "block":
        raise ImageFileError(
            path, "voxel-type", "its voxel type is block, not a number", "write it as float32 or int16"
        )
    return _TYPES[name]


def _packing(path: Path, fields: Mapping[str, str]) -> Packing:
    name = fields["encoding"].lower()
    skips = int(fields.get("byte skip", fields.get("byteskip", "0"))) != 0
    if name not in _PACKINGS or (skips and _PACKINGS[name] != "raw"):
        how = f"{name} with a byte skip" if name in _PACKINGS else name
        raise ImageFileError(
            path, "encoding", f"its voxels are encoded as {how}, which is not read", "write it raw, or with gzip"
        )
    return _PACKINGS[name]


def _start(voxels: Path, start: int, fields: Mapping[str, str]) -> int | None:
    """Where the voxels begin: after `line skip` lines, then `byte skip` bytes; None (-1 bytes): at the file's end."""
    skipped = int(fields.get("byte skip", fields.get("byteskip", "0")))
    with voxels.open("rb") as stream:
        stream.seek(start)
        for _ in range(int(fields.get("line skip", fields.get("lineskip", "0")))):
            if not stream.readline():
                break  # a header may promise more lines than there are
        return None if skipped < 0 else stream.tell() + skipped


def vector_text(values: Sequence[float]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"
