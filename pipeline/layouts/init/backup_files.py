"""Copies of files that would be replaced."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count
from pathlib import Path


def backup_existing(path: Path, write: Callable[[], object]) -> list[str]:
    """Calls `write`; where it replaced a different file at `path`, that is kept beside it, which the notes say."""
    before = path.read_bytes() if path.is_file() else None
    write()
    if before in (None, path.read_bytes()):
        return []
    kept = _unused(path.with_name(f"{path.name}.previous"))
    kept.write_bytes(before)
    return [f"{path.name} was there already; the old one is now {kept.name}"]


def _unused(path: Path) -> Path:
    """`path`, or PATH.2, PATH.3, ... where it is there already: what was kept before stays."""
    further = (path.with_name(f"{path.name}.{number}") for number in count(2))
    return next(place for place in chain([path], further) if not place.exists())
