"""Zip files that clients send, unpacked under names of our own so that nothing can swell."""

from __future__ import annotations

import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.io.dicom.dicom_file import is_dicom
from pipeline.io.image_file_names import CHANNEL_SUFFIX, image_ending

MOST_ENTRIES = 4096

_DAMAGED_ZIP = "the zip is damaged; pack or copy it again"
_PIECE = 2**20
_LONGEST_END = 2**16 + 21 + 20
"""Of a zip: its end record with a comment, and what may stand before it."""
_LARGEST_DIRECTORY = 4 * 2**20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Others need as much memory to unpack as the archive says (LZMA's dictionary: up to 4 GiB)."""
_ENCRYPTED = 1
"""Bit of an entry's flags."""
_APART = {".mhd", ".nhdr", ".hdr", ".img"}
"""Kinds of file whose voxels lie in another one."""


def unzip_upload(archive: Path, folder: Path, most_bytes: int, channels: tuple[str, ...]) -> None:
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
            ours = safe_names([entry.filename for entry in entries], channels)
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


def safe_names(theirs: Sequence[str], channels: tuple[str, ...]) -> list[str]:
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
