"""Stamps of files, by which a change is noticed without reading them: size and date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.hashing import digest_of
from pipeline.io.scan_digests import voxel_files


def size_and_date(path: Path) -> str:
    """Of a file (with the other one of a pair), or of all files of a DICOM series."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path, *voxel_files(path)]
        stats = [file.stat() for file in files if file.is_file()]
    except OSError as error:  # the checks name it, with its case
        return f"not readable: {error.strerror}"
    return f"{sum(s.st_size for s in stats)} {max((s.st_mtime_ns for s in stats), default='missing')}"


def digest_of_stamps(images: Sequence[Path]) -> str:
    """Changes with the place, size or date of any file of a scan; a folder is a DICOM series of all files in it."""
    files = [file for path in images for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return digest_of([[str(file.absolute()), *_size_and_time(file)] for file in files])


def _size_and_time(path: Path) -> tuple[int, int]:
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)
