"""Files on disk: atomic writes, digests, and paths that cannot leave their folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path of the same ending beside `path`, then renames it into place.

    A killed process leaves either the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(prefix=".", suffix=f".tmp{ending}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a DataError names the file and the line where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from None


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative`, refused with a DataError where it is absolute or would leave `root`."""
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"path {relative!r} leaves its folder {root}; give a path inside it, without '..'")
    return root / path
