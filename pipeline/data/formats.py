"""Files in, volumes out, and back: NIfTI and MGH through nibabel, NRRD and MetaImage through SimpleITK.

Affines are RAS+ millimetres and array axes nibabel's (x, y, z) for every kind of file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_write
from pipeline.base.runtime import available_memory_gib
from pipeline.data.geometry import Grid
from pipeline.data.volume import Volume

NIBABEL_ENDINGS = (".nii.gz", ".nii", ".hdr", ".img", ".mgz", ".mgh")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_ENDINGS = (*NIBABEL_ENDINGS, *ITK_ENDINGS)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNREADABLE = (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, EOFError, OSError, ValueError,
               zlib.error, gzip.BadGzipFile, RuntimeError)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file's header says, before any voxel is read. `shape` has all dimensions, channels last."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    grid: Grid
    fields: Mapping[str, Any]


def image_ending(path: Path) -> str:
    """The image ending of a file name (`.nii.gz`, `.mha`, ...), or '' where it is none."""
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), "")


def case_id(path: Path) -> str:
    """The file name without its image ending and without a channel suffix `_0000`."""
    stem = path.name[: len(path.name) - len(image_ending(path))]
    head, _, tail = stem.rpartition("_")
    return head if head and len(tail) == 4 and tail.isdigit() else stem


def read_header(path: Path) -> Header:
    """Shape, type and grid, without voxels. DataError where the file is missing, of another kind or unreadable."""
    ending = image_ending(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if not ending:
        raise DataError(f"{path}: not an image that can be read; allowed endings: {', '.join(IMAGE_ENDINGS)}")
    try:
        return _nibabel_header(path) if ending in NIBABEL_ENDINGS else _itk_header(path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({_first_line(error)}); copy or export it again") from None


def read_image(paths: Sequence[Path]) -> Volume:
    """An image (C, X, Y, Z) float32 from one file per channel, or one 3D or 4D file; scaling slopes are applied.

    DataError where a file is unreadable or truncated, has colour or complex voxels, or channels lie on other grids.
    """
    volumes = [_read(path) for path in paths]
    arrays = [v.array[None] if v.array.ndim == 3 else np.moveaxis(v.array, -1, 0) for v in volumes]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if not volume.grid.close_to(first.grid):
            raise DataError(
                f"{path}: lies on another grid than {paths[0].name} (shape {volume.grid.shape} and {first.grid.shape})"
            )
    array = (
        np.concatenate(arrays).astype(np.float32, copy=False)
        if len(arrays) > 1
        else arrays[0].astype(np.float32, copy=False)
    )
    return Volume(np.ascontiguousarray(array), first.grid, first.header)


def read_label(path: Path) -> Volume:
    """A label map (X, Y, Z) of integers. DataError as `read_image`, and where it is 4D or holds fractions."""
    volume = _read(path)
    array = volume.array
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise DataError(
            f"{path}: a label map must be 3D, this one has shape {array.shape}; write one label map per case"
        )
    if not np.issubdtype(array.dtype, np.integer):
        if not np.isfinite(array).all():
            raise DataError(f"{path}: the label map holds NaN or infinity; write integers")
        rounded = np.rint(array)
        if not np.array_equal(rounded, array):
            found = float(array[rounded != array][0])
            raise DataError(f"{path}: the label map holds fractions (found {found:g}); write integers")
        array = rounded.astype(np.int32)
    return Volume(array, volume.grid, volume.header)


def write_label(path: Path, volume: Volume) -> None:
    """Writes a label map atomically, in the kind of file that the ending names, with the header of `volume`.

    The type is the smallest unsigned integer that holds the values; qform, sform, codes and units stay as in the input.
    """
    array = volume.array.astype(np.min_scalar_type(int(volume.array.max(initial=0))), copy=False)
    if array.dtype == np.uint64:
        raise DataError(f"{path}: label values above {np.iinfo(np.uint32).max} cannot be written")
    ending = image_ending(path)
    if ending in {".nii.gz", ".nii"}:
        image = _nifti(array, volume)
        atomic_write(path, lambda temporary: nib.save(image, temporary))
    elif ending in {".mha", ".nrrd"}:
        atomic_write(path, lambda temporary: _write_itk(temporary, array, volume.grid))
    else:
        raise DataError(f"{path}: label maps are written as .nii.gz, .nii, .mha or .nrrd")


def _read(path: Path) -> Volume:
    header = read_header(path)
    _refuse_what_cannot_be_used(header)
    try:
        if image_ending(path) in NIBABEL_ENDINGS:
            array = _nibabel_voxels(path)
        else:
            array = _itk_voxels(path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: truncated or damaged ({_first_line(error)}); copy or export it again") from None
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return Volume(array, header.grid, header.fields) if array.ndim == 3 else _FourD(array, header.grid, header.fields)


class _FourD(Volume):
    """A volume whose channels are still the last axis."""

    def __post_init__(self) -> None:
        if self.array.shape[:3] != self.grid.shape:
            raise AssertionError(f"array {self.array.shape} does not lie on a grid of shape {self.grid.shape}")


def _refuse_what_cannot_be_used(header: Header) -> None:
    if header.dtype.fields is not None or header.dtype.kind not in "iuf":
        kind = "complex numbers" if header.dtype.kind == "c" else "colours"
        raise DataError(f"{header.path}: its voxels are {kind}; one number per voxel is needed")
    if len(header.shape) > 4 and any(n > 1 for n in header.shape[4:]):
        raise DataError(
            f"{header.path}: {len(header.shape)} dimensions {header.shape}; 3D, or 4D with channels, is needed"
        )
    if any(n < 1 for n in header.shape):
        raise DataError(f"{header.path}: an empty image of shape {header.shape}")
    needed = float(np.prod([float(n) for n in header.shape])) * max(header.dtype.itemsize, 4) / 2**30
    if needed > (free := available_memory_gib()):
        raise DataError(
            f"{header.path}: its header promises {header.shape} voxels, {needed:.1f} GiB of memory; {free:.1f} GiB are free"
        )


def _nibabel_header(path: Path) -> Header:
    image = nib.load(path)
    shape = tuple(int(n) for n in image.shape)
    spatial = (*shape, 1, 1, 1)[:3]
    fields: dict[str, Any] = {"kind": image_ending(path)}
    if isinstance(image, nib.Nifti1Pair):
        qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
        fields |= {
            "qform": (None if qform[0] is None else qform[0].tolist(), int(qform[1])),
            "sform": (None if sform[0] is None else sform[0].tolist(), int(sform[1])),
            "xyzt_units": int(image.header["xyzt_units"]),
            "descrip": bytes(image.header["descrip"].tobytes()).rstrip(b"\0"),
            "version": 2 if isinstance(image, nib.Nifti2Pair) else 1,
        }
    expected = int(np.prod(shape, dtype=object)) * image.get_data_dtype().itemsize
    fields["uncompressed_bytes"] = expected
    if image_ending(path) == ".nii" and path.stat().st_size < expected:
        raise ValueError(
            f"its header promises {expected} bytes of voxels, the file has {path.stat().st_size} bytes in all"
        )
    return Header(
        path, shape, image.get_data_dtype(), Grid(spatial, np.asarray(image.affine, dtype=np.float64)), fields
    )  # type: ignore[arg-type]


def _nibabel_voxels(path: Path) -> NDArray[Any]:
    proxy = nib.load(path).dataobj
    slope, inter = getattr(proxy, "slope", 1.0), getattr(proxy, "inter", 0.0)
    if slope == 1.0 and inter == 0.0:
        raw = np.asanyarray(proxy.get_unscaled() if hasattr(proxy, "get_unscaled") else proxy)
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)
    return np.asarray(proxy.get_scaled(dtype=np.float32) if hasattr(proxy, "get_scaled") else proxy)


def _itk_header(path: Path) -> Header:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = tuple(int(n) for n in reader.GetSize())
    grid = _itk_grid(size, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    channels = reader.GetNumberOfComponents()
    dtype = np.dtype(np.float64) if channels == 1 else np.dtype([("c", np.float32)])
    if (pixel := reader.GetPixelID()) in _itk_types():
        dtype = np.dtype(_itk_types()[pixel])
    return Header(path, size, dtype, grid, {"kind": image_ending(path)})


def _itk_types() -> dict[int, Any]:
    import SimpleITK as sitk

    names = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
    return {getattr(sitk, f"sitk{name}"): np.dtype(name.lower()) for name in names}


def _itk_grid(
    size: tuple[int, ...], spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Grid:
    n = len(size)
    affine = np.eye(4)
    affine[: min(n, 3), : min(n, 3)] = (np.array(direction).reshape(n, n) * np.array(spacing))[:3, :3]
    affine[: min(n, 3), 3] = origin[:3]
    return Grid(((*size, 1, 1)[:3]), _LPS_TO_RAS @ affine)  # type: ignore[arg-type]


def _itk_voxels(path: Path) -> NDArray[Any]:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def _write_itk(path: Path, array: NDArray[Any], grid: Grid) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = _LPS_TO_RAS @ grid.affine
    spacing = np.array(grid.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _nifti(array: NDArray[Any], volume: Volume) -> nib.Nifti1Image:
    fields = volume.header
    kind = nib.Nifti2Image if fields.get("version") == 2 or max(array.shape) > 32767 else nib.Nifti1Image
    image = kind(array, volume.grid.affine)
    if "sform" in fields:
        for set_form, key in ((image.set_qform, "qform"), (image.set_sform, "sform")):
            affine, code = fields[key]
            set_form(None if affine is None else np.array(affine), code)
        image.header["xyzt_units"] = fields["xyzt_units"]
        image.header["descrip"] = fields["descrip"]
    else:
        image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1.0, 0.0)
    return image


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
