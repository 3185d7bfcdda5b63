"""Walks a folder as people arrange them: through links to other folders, each once, and stops where it may not look."""

from __future__ import annotations

import errno
import gzip
import os
import shlex
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.io.image_file_names import IMAGE_ENDINGS

_PIECE = 2**20

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


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted; hidden ones (also AppleDouble `._x`) and .img halves are left out.

    Where a file lies there packed and unpacked alike (c1.nii.gz, c1.nii), it counts once.
    """
    paths = sorted(filter(is_image, files_below(folder)))
    packed = {path.with_suffix(""): path for path in paths if path.name.lower().endswith(".nii.gz")}
    return [path for path in paths if path not in packed or not _unpacks_to(packed[path], path)]


def is_image(path: Path) -> bool:
    """True for a visible file with an image ending; of a .hdr/.img pair the .hdr stands for both.

    A link to a file that is not there (data sets whose files are fetched on demand) is one too, and is then named as
    missing.
    """
    name = path.name.lower()
    if path.name.startswith(".") or not name.endswith(tuple(IMAGE_ENDINGS)):
        return False
    if not (path.is_file() or (path.is_symlink() and not path.exists())):
        return False
    header = path.with_suffix(".hdr")
    return not (name.endswith(".img") and header.is_file())


@cache
def _unpacks_to(packed: Path, plain: Path) -> bool:
    """Whether a gzip file holds just what lies in `plain`; asked once, since both are read to their ends."""
    try:
        with gzip.open(packed) as inner, plain.open("rb") as outer:
            while (piece := inner.read(_PIECE)) == outer.read(_PIECE):
                if not piece:
                    return True
    except (OSError, EOFError, zlib.error):
        return False
    return False
