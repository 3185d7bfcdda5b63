"""Names of image files: endings, case ids and channel suffixes."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.io.image_file_error import ImageFileError
from pipeline.io.itk import metaimage_header, nrrd_header

NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr", ".img")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
MGH_ENDINGS = (".mgz", ".mgh")
IMAGE_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS + MGH_ENDINGS
CHANNEL_SUFFIX = re.compile(r"(?<=.)_(\d{4})$")


def image_ending(path: Path) -> str:
    """The image ending of a file name in lower case (`.nii.gz`, `.mha`, ...), or an empty string."""
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), "")


def stem(path: Path) -> str:
    """The file name without its image ending; a channel suffix stays."""
    ending = image_ending(path)
    return path.name[: len(path.name) - len(ending)] if ending else path.name


def case_id(path: Path, channels: int = 1) -> str:
    """The file name without its image ending and the suffix of one of `channels` channels: `_0000` of a single one.

    Digits that are no channel's count cases: `case_0007` of one channel is a case of its own.
    """
    name = stem(path)
    suffix = CHANNEL_SUFFIX.search(name)
    return name[: suffix.start()] if suffix and int(suffix.group(1)) < channels else name


def voxel_files(path: Path) -> list[Path]:
    """The other file, with the voxels, of a header (.hdr, .mhd, .nhdr) that has one; none where it cannot be told."""
    ending = path.suffix.lower()
    if ending == ".hdr":
        voxels = path.with_suffix(".img")
    elif ending in {".mhd", ".nhdr"}:
        try:
            voxels = (metaimage_header if ending == ".mhd" else nrrd_header).read_text_header(path).voxels
        except (ImageFileError, KeyError, ValueError, IndexError, OSError):
            return []
    else:
        return []
    return [voxels] if voxels != path and voxels.is_file() else []
