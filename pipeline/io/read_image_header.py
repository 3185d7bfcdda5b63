"""Header of an image file of any kind, read without its voxels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.io.dicom import dicom_series
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import IMAGE_ENDINGS, ITK_ENDINGS, MGH_ENDINGS, image_ending
from pipeline.io.image_header import ImageHeader
from pipeline.io.itk import read_metaimage_nrrd


def read_image_header(path: Path) -> ImageHeader:
    """Grid, channels and voxel type without the voxels; an ImageFileError where the file cannot be used."""
    with refusals_as_faults(path):
        return _read_header(path)


def _read_header(path: Path) -> ImageHeader:
    if not path.exists():
        raise ImageFileError(path, "missing-file", "there is no such file", "check the manifest's path and data.root")
    if path.is_dir():
        return dicom_series.read_header(path)
    ending = image_ending(path)
    if not ending:
        raise ImageFileError(
            path,
            "unknown-kind",
            f"its ending {path.suffix!r} is not one of an image that can be read",
            f"convert it to one of {', '.join(IMAGE_ENDINGS)}",
        )
    if ending in ITK_ENDINGS:
        return read_metaimage_nrrd.read_header(path, ending)
    # nibabel takes time to import, and listing scans or reading other kinds needs none of it
    from pipeline.io import mgh_header, nifti_header

    return (mgh_header if ending in MGH_ENDINGS else nifti_header).read_header(path, ending)


@contextmanager
def refusals_as_faults(path: Path) -> Iterator[None]:
    """What the system refuses (permissions, a failing disk) as an ImageFileError; a DICOM folder is not named."""
    try:
        yield
    except OSError as error:
        place = path if image_ending(path) else Path("DICOM series")
        found = f"it cannot be read ({error.strerror or type(error).__name__})"
        raise ImageFileError(place, "unreadable", found, "check its permissions and its disk") from None
