"""Walks a folder as people arrange them: through links to other folders, each once, and stops where it may not look."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from pipeline.base.errors import DataError

_NOT_DATA = {"__MACOSX", "lost+found"}


def folders_below(folder: Path) -> Iterator[Path]:
    """The folder and all visible ones below it, linked ones too, in order.

    A link to a folder that is walked anyway, or that this one lies in, is not followed. Raises a DataError where a
    folder cannot be opened, whose files would else be taken for missing.
    """
    top, seen = folder.resolve(), set[Path]()

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{folder}: a folder in it cannot be opened ({error.strerror}); see to your rights (find -L "
            rf"{shlex.quote(str(folder))} -type d ! \( -readable -executable \) lists such folders)"
        )

    for place, below, _ in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place)
        if (real := here.resolve()) in seen:
            below.clear()
            continue
        seen.add(real)
        if not os.access(here, os.X_OK):  # its names can be read, but nothing that lies there
            refuse(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        below[:] = sorted(name for name in below if _visible(name) and not _leads_back(here / name, top))
        yield here


def files_below(folder: Path) -> Iterator[Path]:
    """All visible files below the folder, links (also to what is not there) among them."""
    for place in folders_below(folder):
        for path in place.iterdir():
            if _visible(path.name) and not path.is_dir():
                yield path


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_DATA


def _leads_back(path: Path, top: Path) -> bool:
    """True for a link into what is walked without it, or up to a folder that `top` lies in."""
    if not path.is_symlink():
        return False
    real = path.resolve()
    if top.is_relative_to(real):
        return True
    return real.is_relative_to(top) and all(_visible(part) for part in real.relative_to(top).parts)
