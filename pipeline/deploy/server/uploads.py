"""What clients send, made into image files of our own naming: nothing of theirs is a path, and nothing can swell.

What an upload is, is read from its first bytes. A zip is unpacked entry by entry under names that we give, up to a
number of entries and bytes; headers are checked before any voxel is unpacked, and no header may name another file.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.base.errors import DataError
from pipeline.deploy.list_scans import list_scans
from pipeline.io.dicom_file import is_dicom
from pipeline.io.formats import CHANNEL_SUFFIX, image_ending, read_header
from pipeline.io.geometry import to_canonical
from pipeline.io.image_header import ImageFileError
from pipeline.preprocessing.plan import Plan

SCAN = "scan"
"""The folder of a request's image files, below its own."""
MOST_ENTRIES = 4096
_TAKEN = "NIfTI, .mha, .nrrd, or a zip of one DICOM series"
_DAMAGED_ZIP = "the zip is damaged; pack or copy it again"
_PIECE = 2**20
_LONGEST_END = 2**16 + 21 + 20
"""Of a zip: its end record with a comment, and what may stand before it."""
_LARGEST_DIRECTORY = 4 * 2**20
_HEADER_LIMIT = 2**20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Others need as much memory to unpack as the archive says (LZMA's dictionary: up to 4 GiB)."""
_ENCRYPTED = 1
"""Bit of an entry's flags."""
_BYTES_A_VOXEL = 4  # the model computes in float32
_APART = {".mhd", ".nhdr", ".hdr", ".img"}
"""Kinds of file whose voxels lie in another one."""


class UploadRejected(Exception):
    """An upload that is not taken: an HTTP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """Image files of one case as the model takes them, and the ending that its segmentation gets."""

    images: tuple[Path, ...]
    ending: str
    is_series: bool = False
    """Whether it is a DICOM series: one folder of files."""


def unpack_upload(received: Path, folder: Path, plan: Plan, most_bytes: int) -> Upload:
    """Makes the received file into one case below `folder`.

    most_bytes: how large it may be when unpacked, and on the model's grid. Raises Refused: 415 for what is no scan, 413
    for what is too large, 422 for a scan that does not fit the model or is damaged.
    """
    channels = tuple(channel.name for channel in plan.channels)
    place = folder / SCAN
    place.mkdir()
    ending = kind_of(received)
    if ending == ".zip":
        _unzip(received, place, most_bytes, channels)
        received.unlink()
    else:
        received.rename(place / f"scan{ending}")
    try:
        scans = list_scans(place, channels)
    except DataError:
        raise UploadRejected(415, f"there is no scan in it; send {_TAKEN}") from None
    if len(scans) != 1:
        several = f"; a case's channels are files that end in {_endings(channels)}" if len(channels) > 1 else ""
        raise UploadRejected(422, f"{len(scans)} cases in it; send one at a time{several}")
    if scans[0].fault:
        raise UploadRejected(422, scans[0].fault)
    for path in scans[0].images:
        _refuse_other_files(path)
    _check_headers(scans[0].images, plan, most_bytes)
    kept = image_ending(scans[0].images[0])
    return Upload(scans[0].images, kept if kept in {".mha", ".nrrd"} else ".nii.gz", scans[0].images[0].is_dir())


def _endings(channels: tuple[str, ...]) -> str:
    return ", ".join(f"_{number:04d} ({name})" for number, name in enumerate(channels))


def kind_of(path: Path) -> str:
    """The ending that a file's first bytes ask for; Refused (415) where they are none that is known."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".nii.gz"
    if head.startswith(b"NRRD"):
        return ".nrrd"
    if head.startswith((b"ObjectType", b"NDims")):
        return ".mha"
    if head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] == b"n+2\0":
        return ".nii"
    what = "is empty" if not head else "is of another kind"
    raise UploadRejected(415, f"the upload {what}; send {_TAKEN}")


def _check_headers(images: tuple[Path, ...], plan: Plan, most_bytes: int) -> None:
    try:
        headers = [read_header(path) for path in images]
    except ImageFileError as fault:
        raise UploadRejected(422, f"{fault.found}; {fault.cure}") from None
    names = [channel.name for channel in plan.channels]
    if (found := sum(header.channels for header in headers)) != len(names):
        raise UploadRejected(
            422, f"{found} channel(s) or time points; the model takes {len(names)}: {', '.join(names)}"
        )
    if (size := sum(header.voxel_bytes for header in headers)) > most_bytes:
        raise UploadRejected(413, f"{size:,} bytes of voxels by its header; at most {most_bytes:,} are taken")
    _, grid = to_canonical(headers[0].grid)
    extent_mm = np.array(grid.shape, float) * grid.spacing_mm
    planned_bytes = _BYTES_A_VOXEL * len(names) * float(np.prod(extent_mm / plan.spacing_mm))
    if planned_bytes > most_bytes:
        extent = " × ".join(f"{mm:,.0f}" for mm in extent_mm)
        what = f"its header says {extent} mm, which are {planned_bytes:,.0f} bytes at the model's voxel size"
        raise UploadRejected(413, f"{what}; at most {most_bytes:,} are taken: check its spacing")


def _refuse_other_files(path: Path) -> None:
    """A header may say that its voxels lie in another file: any file of this machine, if it were believed."""
    ending = image_ending(path)
    if ending not in {".mha", ".nrrd"}:
        return
    with path.open("rb") as stream:
        head = stream.read(_HEADER_LIMIT)
    if ending == ".nrrd":
        whole = not re.search(rb"data ?file", re.split(rb"\n\r?\n", head, maxsplit=1)[0], re.IGNORECASE)
    else:
        named = re.findall(rb"(?i:elementdatafile)", head)
        whole = len(named) == 1 and re.search(rb"\nElementDataFile *= *(LOCAL|Local|local) *\r?\n", head) is not None
    if not whole:
        raise UploadRejected(422, "its voxels lie in another file; send one file with header and voxels")


def _unzip(archive: Path, folder: Path, most_bytes: int, channels: tuple[str, ...]) -> None:
    left = most_bytes
    _refuse_large_directory(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > MOST_ENTRIES:
                raise UploadRejected(413, f"{len(entries)} files in the zip; at most {MOST_ENTRIES} are taken")
            if (size := sum(entry.file_size for entry in entries)) > most_bytes:
                raise UploadRejected(413, f"the zip unpacks to {size:,} bytes; at most {most_bytes:,} are taken")
            if any(entry.flag_bits & _ENCRYPTED for entry in entries):
                raise UploadRejected(422, "the zip is encrypted; send it without a password")
            if any(entry.compress_type not in _METHODS for entry in entries):
                raise UploadRejected(422, "the zip is packed in an unusual way; pack it again as a plain zip")
            ours = our_names([entry.filename for entry in entries], channels)
            for entry, name in zip(entries, ours, strict=True):
                left -= _extract(opened, entry, folder / name, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        raise UploadRejected(422, _DAMAGED_ZIP) from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # an entry that begins before the file does
            raise UploadRejected(422, _DAMAGED_ZIP) from None
        raise
    for path in sorted(folder.iterdir()):  # licences, DICOMDIR, previews
        if image_ending(path) in _APART or not (image_ending(path) or is_dicom(path)):
            path.unlink()


def _refuse_large_directory(archive: Path) -> None:
    """Looks at a zip's end before its directory is read, which takes memory for every entry that it lists."""
    with archive.open("rb") as stream:
        stream.seek(-min(archive.stat().st_size, _LONGEST_END), os.SEEK_END)
        tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise UploadRejected(422, _DAMAGED_ZIP)
    entries, size = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(at - 20, 0) : at].startswith(b"PK\x06\x07"):  # a second end, for more than any scan has
        raise UploadRejected(413, "the zip has the form for over 4 GiB or 65535 files; pack it again as a plain zip")
    if entries > MOST_ENTRIES:
        raise UploadRejected(413, f"{entries} files in the zip; at most {MOST_ENTRIES} are taken")
    if size > _LARGEST_DIRECTORY:
        raise UploadRejected(413, f"the zip's directory has {size:,} bytes; at most {_LARGEST_DIRECTORY:,} are taken")


def our_names(theirs: Sequence[str], channels: tuple[str, ...]) -> list[str]:
    """Names of ours: which file is which case's and channel's, and of theirs an image ending alone.

    A channel is a number at the end (`_0001`), or for a model of several its name in the file's. What is left of the
    name, with its folder, tells cases apart.
    """
    cases: dict[tuple[str, str], int] = {}
    names = []
    for number, entry in enumerate(theirs):
        path = PurePosixPath(entry.replace("\\", "/"))
        ending = image_ending(Path(path.name))
        if not ending or path.name.startswith("."):
            names.append(f"{number:05d}")
            continue
        case, channel = _case_and_channel(path.name[: -len(ending)], channels)
        which = cases.setdefault((str(path.parent), case), len(cases))
        names.append(f"case{which}{'' if channel is None else f'_{channel:04d}'}{ending}")
    return names


def _case_and_channel(stem: str, channels: tuple[str, ...]) -> tuple[str, int | None]:
    if numbered := CHANNEL_SUFFIX.search(stem):
        return stem[: numbered.start()], int(numbered.group(1))
    held = [name for name in channels if name.lower() in stem.lower()] if len(channels) > 1 else []
    if not held:
        return stem, None
    name = max(held, key=len)  # T1C, not T1
    return stem.lower().replace(name.lower(), "", 1), channels.index(name)


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, most_bytes: int) -> int:
    """Writes one entry and returns its size; a zip that lies about sizes is stopped where it passes the limit."""
    written = 0
    if target.exists():
        raise UploadRejected(
            422, "two files in the zip are one case's and channel's by their names; send one case at a time"
        )
    with opened.open(entry) as source, target.open("wb") as out:
        while block := source.read(_PIECE):
            written += len(block)
            if written > most_bytes:
                raise UploadRejected(413, f"the zip unpacks to more than {most_bytes:,} bytes")
            out.write(block)
    return written
