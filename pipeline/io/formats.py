"""Image and label files of every kind behind four functions: read a header, an image, a label map; write a label map.

What cannot be used is refused with an ImageFileError before memory is taken for its voxels. Arrays have nibabel's axes.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import atomic_write
from pipeline.io import dicom_series, metaimage_nrrd, raw_voxels
from pipeline.io.geometry import Grid
from pipeline.io.image_header import ImageFileError, ImageHeader
from pipeline.io.resample_to_grid import resample_to_grid
from pipeline.io.volume import Volume

NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr", ".img")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
MGH_ENDINGS = (".mgz", ".mgh")
IMAGE_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS + MGH_ENDINGS
CHANNEL_SUFFIX = re.compile(r"(?<=.)_(\d{4})$")
_BLOCK = 32
_ROUNDING = 1e-3
"""What calculations in floating point, or a slope in float32, may leave of noise on a whole number."""
GRID_TOLERANCE_MM = 0.1
"""Corner distance up to which two grids of one shape count as the same."""


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


def read_header(path: Path) -> ImageHeader:
    """Grid, channels and voxel type without the voxels; an ImageFileError where the file cannot be used."""
    with _refusals_as_faults(path):
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
        return metaimage_nrrd.read_header(path, ending)
    # nibabel takes time to import, and listing scans or reading other kinds needs none of it
    from pipeline.io import mgh, nifti

    return (mgh if ending in MGH_ENDINGS else nifti).read_header(path, ending)


def read_image(paths: Sequence[Path], resample_channels: bool = False) -> Volume:
    """One file per channel, or one file with all channels, as float32 (C, X, Y, Z), scaling applied.

    Grid and header are the first file's. Files on another grid are resampled onto it where `resample_channels` says
    so. An ImageFileError where a file cannot be used, or lies on another grid.
    """
    headers = [read_header(path) for path in paths]
    grid = headers[0].grid
    # All channels in one array from the start: joined at the end, they would be there twice.
    several = None if len(headers) == 1 else np.empty((sum(h.channels for h in headers), *grid.shape), np.float32)
    first = 0
    for header in headers:
        difference = grid_difference(grid, header.grid)
        if difference and not resample_channels:
            raise ImageFileError(
                header.path,
                "channel-grid",
                f"it lies on another grid than {headers[0].path.name}: {difference}",
                "resample it onto that grid, or set load.resample_channels: true",
            )
        array = image_voxels(header)
        if several is None:
            return Volume(array, grid, header.fields)
        several[first : first + header.channels] = resample_to_grid(array, header.grid, grid) if difference else array
        first += header.channels
    if several is None:
        raise AssertionError("an image without files")
    return Volume(several, grid, headers[0].fields)


def read_label(path: Path) -> Volume:
    """A label map as integers (X, Y, Z); an ImageFileError where values are not whole numbers or there are 4 axes."""
    header = read_header(path)
    return Volume(label_voxels(header), header.grid, header.fields)


def image_voxels(header: ImageHeader) -> NDArray[np.float32]:
    """All channels behind a header as float32 (C, X, Y, Z) in C order, scaling applied in float64."""
    raw, slope, intercept = _raw(header)
    channels = np.moveaxis(raw, 3, 0) if raw.ndim == 4 else raw[None]
    array = np.empty((header.channels, *header.grid.shape), np.float32)
    for place in _blocks(header.grid.shape):
        block = channels[(slice(None), *place)]
        scaled = block if (slope, intercept) == (1.0, 0.0) else block.astype(np.float64) * slope + intercept
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the checks name
            array[(slice(None), *place)] = scaled
    return array


def verify_readable(path: Path) -> None:
    """Reads all voxels as stored and forgets them; an ImageFileError where the file is damaged or ends too early."""
    _raw(read_header(path))


def label_voxels(header: ImageHeader) -> NDArray[Any]:
    """The label values behind a header, in C order."""
    if header.may_be_colours:
        raise ImageFileError(
            header.path,
            "colour",
            f"it is a colour image ({header.per_voxel} bytes a voxel), not a label map",
            "write it with one label value a voxel, each colour as a value of its own",
        )
    if header.channels > 1:
        raise ImageFileError(
            header.path,
            "label-4d",
            f"it is a label map with {header.channels} volumes; one is meant",
            "merge them into one map of label values",
        )
    raw, slope, intercept = _raw(header)
    if (slope, intercept) != (1.0, 0.0):
        raw = raw * slope + intercept
    if raw.dtype.kind == "f":
        raw = _whole(header.path, raw)
    elif raw.dtype.kind == "b":
        raw = raw.astype(np.uint8)
    array = np.empty(raw.shape, raw.dtype.newbyteorder("="))
    for place in _blocks(header.grid.shape):
        array[place] = raw[place]
    return array


def write_label(path: Path, volume: Volume) -> None:
    """Writes label values in the kind of file that `path` names, atomically.

    Grid, qform and sform with codes, units and description are those of the volume's header where it comes from a file
    of that family; the voxel type is the smallest unsigned one that holds the values; scl_slope is 1.
    """
    array = _smallest_unsigned(volume.array)
    ending = image_ending(path)
    if ending in ITK_ENDINGS and ending not in {".mhd", ".nhdr"}:
        atomic_write(path, lambda t: metaimage_nrrd.write_label(t, array, volume.grid, volume.header.get("itk")))
    elif ending in {".nii", ".nii.gz"}:
        from pipeline.io import nifti

        original = volume.header.get("nifti")
        atomic_write(path, lambda t: nifti.write_label(t, ending, array, volume.grid, original))
    elif ending in {".hdr", ".img"}:
        _write_pair(path, array, volume)
    else:
        raise ImageFileError(
            path,
            "unknown-kind",
            "label maps are not written in this kind of file",
            "name it .nii.gz, .nii, .hdr, .img, .nrrd or .mha",
        )


def strip_description(volume: Volume) -> Volume:
    """The same without the description of its NIfTI header, which may name the patient."""
    if "nifti" not in volume.header:
        return volume
    header = volume.header["nifti"].copy()
    header["descrip"] = b""
    return Volume(volume.array, volume.grid, {**volume.header, "nifti": header})


def grid_difference(first: Grid, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> str | None:
    """How two grids differ (shape, spacing, direction or origin), in words; None where they are the same."""
    if first.shape != other.shape:
        return f"shape {_times(other.shape)} instead of {_times(first.shape)}"
    apart_mm = first.distance_mm(other)
    if apart_mm <= tolerance_mm:
        return None
    spacing = np.array(first.spacing_mm), np.array(other.spacing_mm)
    extent_mm = float((np.abs(spacing[0] - spacing[1]) * (np.array(first.shape) - 1)).max())
    if extent_mm > tolerance_mm:
        return f"spacing {_mm(other.spacing_mm)} instead of {_mm(first.spacing_mm)} mm"
    if first.axcodes != other.axcodes:
        return f"orientation {other.axcodes} instead of {first.axcodes}, up to {apart_mm:.1f} mm apart"
    directions = first.affine[:3, :3] / spacing[0] - other.affine[:3, :3] / spacing[1]
    if np.abs(directions).max() * max(first.shape) * max(first.spacing_mm) > tolerance_mm:
        return f"directions that are turned, up to {apart_mm:.1f} mm apart"
    shift = ", ".join(f"{x:.2f}" for x in other.affine[:3, 3] - first.affine[:3, 3])
    return f"an origin that is shifted by ({shift}) mm"


def _raw(header: ImageHeader) -> tuple[NDArray[Any], float, float]:
    with _refusals_as_faults(header.path):
        if header.kind == "dicom":
            return dicom_series.read_voxels(header.path), 1.0, 0.0
        if header.kind in ITK_ENDINGS:
            return metaimage_nrrd.read_voxels(header), 1.0, 0.0
        return raw_voxels.read_voxels(header)


@contextmanager
def _refusals_as_faults(path: Path) -> Iterator[None]:
    """What the system refuses (permissions, a failing disk) as an ImageFileError; a DICOM folder is not named."""
    try:
        yield
    except OSError as error:
        place = path if image_ending(path) else Path("DICOM series")
        found = f"it cannot be read ({error.strerror or type(error).__name__})"
        raise ImageFileError(place, "unreadable", found, "check its permissions and its disk") from None


def _blocks(shape: tuple[int, int, int]) -> Iterator[tuple[slice, ...]]:
    """Blocks of voxels that fit into a processor's cache: files run along x, arrays along z."""
    axes = [[slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)] for n in shape]
    return itertools.product(*axes)


def _whole(path: Path, values: NDArray[Any]) -> NDArray[np.int32]:
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ImageFileError(
            path,
            "label-not-finite",
            f"{bad:,} of its voxels are NaN or infinite; label values are whole numbers",
            "set these voxels to 0 or to their structure",
        )
    nearest = np.rint(values)
    uneven = values[values != nearest]  # few, if any: of these alone differences are taken
    fractions = uneven[np.abs(uneven - np.rint(uneven)) > _ROUNDING]
    if fractions.size:
        raise ImageFileError(
            path,
            "label-not-integer",
            f"{fractions.size:,} of its voxels are not whole numbers (for instance {float(fractions.flat[0]):g}): it "
            "is a probability map, or was interpolated linearly",
            "make it again with nearest-neighbour interpolation, or apply a threshold",
        )
    if np.abs(nearest).max(initial=0) >= 2**31:
        raise ImageFileError(path, "label-range", "its label values are beyond 2147483647", "renumber them")
    return nearest.astype(np.int32)


def _smallest_unsigned(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iub" or (array.dtype.kind == "i" and array.min(initial=0) < 0):
        raise AssertionError(f"label maps hold non-negative whole numbers, not {array.dtype}")
    largest = int(array.max(initial=0))
    return array.astype(next(t for t in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(t).max), copy=False)


def _write_pair(path: Path, array: NDArray[Any], volume: Volume) -> None:
    """The header is renamed last: where it is, its voxels are."""
    from pipeline.io import nifti

    with tempfile.TemporaryDirectory(prefix=".pair-", dir=path.parent) as folder:
        header = Path(folder) / path.with_suffix(".hdr").name
        nifti.write_label(header, ".hdr", array, volume.grid, volume.header.get("nifti"))
        for name in (header.with_suffix(".img"), header):
            name.replace(path.parent / name.name)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _mm(spacing_mm: Sequence[float]) -> str:
    return "×".join(f"{x:.4g}" for x in spacing_mm)
