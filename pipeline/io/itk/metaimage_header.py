"""MetaImage's header (.mha, .mhd): lines of `Key = value`, as MetaIO reads and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.io.itk.text_header import TextHeader, data_file, header_lines, lengths, numbers

_MOST_AXES = 5
_WHOLE = {"CHAR": "i1", "SHORT": "i2", "INT": "i4", "LONG": "i4", "LONG_LONG": "i8"}
_TYPES = {f"MET_{name}": code for name, code in _WHOLE.items()}
_TYPES |= {f"MET_U{name}": code.replace("i", "u") for name, code in _WHOLE.items()}
_TYPES |= {"MET_FLOAT": "f4", "MET_DOUBLE": "f8"}


def read_text_header(path: Path) -> TextHeader:
    """What the header of a .mha or .mhd file says; KeyError or ValueError where it makes no sense."""
    lines, end = header_lines(path, lambda line: line.lower().startswith("elementdatafile"))
    fields = {key.strip().lower(): value.strip() for key, found, value in (s.partition("=") for s in lines) if found}
    count = int(fields["ndims"])
    if not 1 <= count <= _MOST_AXES:
        raise ValueError(f"{count} axes")
    sizes = lengths(fields["dimsize"], count)
    (components,) = lengths(fields.get("elementnumberofchannels", "1"), 1)
    order = ">" if _is_true(fields, "binarydatabyteordermsb", "elementbyteordermsb") else "<"
    name = fields["elementdatafile"]
    local = name.lower() == "local"
    skipped = int(fields.get("headersize", "0"))
    text = fields.get("binarydata", "true").lower().startswith("f")
    spatial = min(count, 3)
    unturned = spaced_numbers(np.eye(count).ravel())
    matrix = np.array(numbers(_first(fields, unturned, "transformmatrix", "rotation", "orientation"), count**2))
    return TextHeader(
        sizes=(components, *sizes) if components > 1 else sizes,
        components=0 if components > 1 else None,
        dtype=np.dtype(order + _TYPES[fields["elementtype"].upper()]),
        origin=numbers(_first(fields, "0 " * count, "offset", "position", "origin"), count)[:spatial],
        spacing=numbers(_first(fields, "1 " * count, "elementspacing", "elementsize"), count)[:spatial],
        direction=matrix.reshape(count, count).T[:spatial, :spatial],  # the file has one axis after the other
        voxels=path if local else data_file(path, name),
        start=end if local else None if skipped < 0 else skipped,
        packing="text" if text else "zlib" if _is_true(fields, "compresseddata") else "raw",
    )


def _first(fields: Mapping[str, str], default: str, *names: str) -> str:
    return next((fields[name] for name in names if name in fields), default)


def _is_true(fields: Mapping[str, str], *names: str) -> bool:
    return _first(fields, "false", *names).lower().startswith(("t", "1"))


def spaced_numbers(values: Iterable[float]) -> str:
    return " ".join(repr(float(value)) for value in values)
