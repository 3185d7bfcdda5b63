"""Pixels of a DICOM slice, decoded and rescaled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.dicom import jpeg_lossless
from pipeline.io.dicom.dicom_file import (
    EXPORT_AGAIN,
    dicom_read_errors,
    number_of,
    read_attributes,
    value_of,
)
from pipeline.io.image_file_error import ImageFileError

if TYPE_CHECKING:
    from pydicom import Dataset


def decode_slice(path: Path, place: Path) -> NDArray[np.float32]:
    """One slice (X, Y), decoded, with rescale slope and intercept applied."""
    dataset = read_attributes(path, place)
    colours = "PALETTE" in str(value_of(dataset, "PhotometricInterpretation", place))
    if colours or (value_of(dataset, "SamplesPerPixel", place) or 1) != 1:
        raise ImageFileError(place, "colours", "its pixels are colours", "a scan has one number per pixel: export that")
    unreadable: tuple[type[Exception], ...] = (AttributeError, RuntimeError, *dicom_read_errors())
    try:
        stored = _without_unused_bits(_decoded(dataset), value_of(dataset, "BitsStored", place))
    except unreadable:
        raise ImageFileError(
            place, "dicom-pixels", "pixels of one of its files cannot be decoded", EXPORT_AGAIN
        ) from None
    slope, intercept = number_of(dataset, "RescaleSlope", place, 1), number_of(dataset, "RescaleIntercept", place, 0)
    return (stored.T * slope + intercept).astype(np.float32)


def _decoded(dataset: Dataset) -> NDArray[Any]:
    """Pixels (Y, X) as stored."""
    from pydicom.encaps import get_frame

    if dataset.file_meta.TransferSyntaxUID not in jpeg_lossless.SYNTAXES:
        return dataset.pixel_array
    pixels = jpeg_lossless.decode_jpeg_lossless(
        get_frame(dataset.PixelData, 0, number_of_frames=1), (dataset.Rows, dataset.Columns)
    )
    return pixels.astype(f"{'iu'[dataset.PixelRepresentation == 0]}{dataset.BitsAllocated // 8}")


def _without_unused_bits(stored: NDArray[Any], bits: int | None) -> NDArray[Any]:
    """Whole numbers of fewer bits than their type has: what lies in the others (overlays, in old files) is dropped."""
    unused = 0 if bits is None or stored.dtype.kind == "f" else 8 * stored.itemsize - bits
    return (stored << unused) >> unused if unused > 0 else stored
