"""Uploads: what clients send, made into image files of our own naming.

What an upload is, is read from its first bytes. A zip is unpacked entry by entry under names that we give, up to a
number of entries and bytes; headers are checked before any voxel is unpacked, and no header may name another file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.deploy.list_scans import list_scans
from pipeline.deploy.server.check_upload import TAKEN, check_headers, kind_of, refuse_other_files
from pipeline.deploy.server.unzip_upload import unzip_upload
from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.io.image_file_names import image_ending
from pipeline.preprocessing.plan import Plan

SCAN = "scan"
"""The folder of a request's image files, below its own."""


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
        unzip_upload(received, place, most_bytes, channels)
        received.unlink()
    else:
        received.rename(place / f"scan{ending}")
    try:
        scans = list_scans(place, channels)
    except DataError:
        raise UploadRejected(415, f"there is no scan in it; send {TAKEN}") from None
    if len(scans) != 1:
        several = f"; a case's channels are files that end in {_endings(channels)}" if len(channels) > 1 else ""
        raise UploadRejected(422, f"{len(scans)} cases in it; send one at a time{several}")
    if scans[0].fault:
        raise UploadRejected(422, scans[0].fault)
    for path in scans[0].images:
        refuse_other_files(path)
    check_headers(scans[0].images, plan, most_bytes)
    kept = image_ending(scans[0].images[0])
    return Upload(scans[0].images, kept if kept in {".mha", ".nrrd"} else ".nii.gz", scans[0].images[0].is_dir())


def _endings(channels: tuple[str, ...]) -> str:
    return ", ".join(f"_{number:04d} ({name})" for number, name in enumerate(channels))
