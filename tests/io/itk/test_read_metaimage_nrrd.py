"""MetaImage and NRRD are read as ITK reads them, whatever words their headers use, and ITK reads what is written."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.itk.read_metaimage_nrrd import fill_with_words
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label

VOXELS = np.arange(24, dtype="<i2").reshape(2, 3, 4)  # Z, Y, X
BOTH = np.stack([VOXELS, -VOXELS], axis=-1)

META = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
PLACED = "TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 1.25 -2 3\nElementSpacing = 0.5 0.7 2\n"
RAW = VOXELS.tobytes()
ZLIB = zlib.compress(RAW)
TEXT = " ".join(map(str, VOXELS.ravel())).encode()
META_FILES = {
    "plain": (f"{META}{PLACED}BinaryData = True\n", RAW),
    "no word on binary": (META, RAW),
    "older words": (f"{META}Position = 1 2 3\nRotation = 0 1 0 1 0 0 0 0 1\nElementSize = 3 2 1\n", RAW),
    "size and spacing": (f"{META}ElementSpacing = 1 2 3\nElementSize = 3 2 1\n", RAW),
    "big endian": (f"{META}BinaryDataByteOrderMSB = True\n", VOXELS.astype(">i2").tobytes()),
    "big endian, older": (f"{META}ElementByteOrderMSB = True\n", VOXELS.astype(">i2").tobytes()),
    "compressed": (
        f"{META}CompressedData = True\nCompressedDataSize = {len(zlib.compress(RAW))}\n",
        zlib.compress(RAW),
    ),
    "channels": (f"{META}ElementNumberOfChannels = 2\n", BOTH.tobytes()),
    "4D": ("NDims = 4\nDimSize = 2 3 2 2\nElementType = MET_SHORT\nElementSpacing = 1 2 3 4\n", RAW),
    "4D of vectors": (
        "NDims = 4\nDimSize = 2 3 1 2\nElementType = MET_SHORT\nElementNumberOfChannels = 2\n",
        RAW,
    ),
    "long": (META.replace("SHORT", "LONG"), VOXELS.astype("<i4").tobytes()),
    "double": (META.replace("SHORT", "DOUBLE"), VOXELS.astype("<f8").tobytes()),
    "orientation by letters": (f"{META}AnatomicalOrientation = LPS\n", RAW),
}
NRRD = "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: little\n"
AXES = "space directions: (0,0.5,0) (-0.7,0,0) (0,0,2)\nspace origin: (1.25,-2,3)\n"
NRRD_FILES = {
    "lps": (f"{NRRD}space: left-posterior-superior\n{AXES}encoding: raw\n", RAW),
    "ras": (f"{NRRD}space: right-anterior-superior\n{AXES}kinds: domain domain domain\nencoding: raw\n", RAW),
    "las": (f"{NRRD}space: LAS\n{AXES}encoding: raw\n", RAW),
    "no space": (f"{NRRD}space dimension: 3\n{AXES}encoding: raw\n", RAW),
    "spacings": (f"{NRRD}spacings: 0.5 0.7 2\nencoding: raw\n", RAW),
    "spacings and mins": (f"{NRRD}spacings: 0.5 0.7 2\naxis mins: 1 2 3\nencoding: raw\n", RAW),
    "of nodes": (f"{NRRD}spacings: 0.5 0.7 2\naxis mins: 1 2 3\ncenters: node node node\nencoding: raw\n", RAW),
    "nothing on its place": (f"{NRRD}encoding: raw\n", RAW),
    "key and value": (f"{NRRD}encoding: raw\nmodality:=MR: T1\n", RAW),
    "gzip": (f"{NRRD}encoding: gz\n", gzip.compress(RAW)),
    "text": (f"{NRRD}encoding: ascii\n", TEXT),
    "big endian": (NRRD.replace("little", "big") + "encoding: raw\n", VOXELS.astype(">i2").tobytes()),
    "skips": (f"{NRRD}line skip: 2\nbyte skip: 3\nencoding: raw\n", b"one\ntwo\n123" + RAW),
    "at the end": (f"{NRRD}byte skip: -1\nencoding: raw\n", b"what else there is" + RAW),
    "vectors": (
        NRRD.replace("3\nsizes: 4", "4\nsizes: 2 4")
        + "space: LPS\nspace directions: none (0,0.5,0) (-0.7,0,0) (0,0,2)\nkinds: vector domain domain domain\n"
        "encoding: raw\n",
        BOTH.tobytes(),
    ),
    "list behind": (
        NRRD.replace("3\nsizes: 4 3 2", "4\nsizes: 4 3 2 2")
        + "space: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,2) none\nkinds: space space space list\nencoding: raw\n",
        np.moveaxis(BOTH, -1, 0).tobytes(),
    ),
}
KINDS = {"mha": META_FILES, "nrrd": NRRD_FILES}
FILES = [(f"a.{kind}", *made) for kind, files in KINDS.items() for made in files.values()]
IDS = [f"{kind} {what}" for kind, files in KINDS.items() for what in files]


def as_itk_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z), of a series of vectors all of the first, then of the next, and RAS+ affine."""
    image = sitk.ReadImage(str(path))
    dimension = image.GetDimension()
    voxels = sitk.GetArrayFromImage(image)
    voxels = voxels if image.GetNumberOfComponentsPerPixel() > 1 else voxels[..., None]
    voxels = (voxels if dimension == 4 else voxels[None]).transpose(0, 4, 3, 2, 1)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return voxels.reshape(-1, *voxels.shape[2:]), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize(("name", "header", "voxels"), FILES, ids=IDS)
def test_hand_made_files_are_what_itk_makes_of_them(name: str, header: str, voxels: bytes, tmp_path: Path) -> None:
    last = "ElementDataFile = LOCAL\n" if name == "a.mha" else "\n"
    (tmp_path / name).write_bytes((header + last).encode() + voxels)
    found = read_image([tmp_path / name])
    expected, affine = as_itk_reads(tmp_path / name)
    np.testing.assert_array_equal(found.array, expected)
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-12)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_what_itk_writes_is_read_whatever_its_type(name: str, dtype: str, compress: bool, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS.astype(dtype))
    image.SetDirection([0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1])
    image.SetSpacing([0.1, 1 / 3, 2])
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compress)
    found = read_image([tmp_path / name])
    expected, affine = as_itk_reads(tmp_path / name)
    np.testing.assert_array_equal(found.array, expected)
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-12)
    assert read_image_header(tmp_path / name).dtype == np.dtype(dtype)


@pytest.mark.parametrize("largest", [1, 300, 70_000])
@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_itk_reads_the_label_maps_that_are_written(name: str, largest: int, tmp_path: Path) -> None:
    """On a turned grid; the same from a second round, whose numbers are the first file's own."""
    affine = np.array([[0.0, -0.7, 0, 1.25], [0.5, 0, 0, -2], [0, 0, 2, 1 / 3], [0, 0, 0, 1]])
    labels = np.random.default_rng(0).integers(0, largest + 1, (4, 3, 2))
    labels[0, 0, 0] = largest
    write_label(tmp_path / name, Volume(labels, Grid((4, 3, 2), affine)))
    again = tmp_path / f"again.{name[2:]}"
    write_label(again, read_label(tmp_path / name))
    for path in (tmp_path / name, again):
        voxels, found = as_itk_reads(path)
        np.testing.assert_array_equal(voxels[0], labels)
        np.testing.assert_allclose(found, affine, atol=1e-12)
        assert voxels.dtype == np.min_scalar_type(largest)
    assert sitk.ReadImage(str(again)).GetOrigin() == sitk.ReadImage(str(tmp_path / name)).GetOrigin()


def _write(path: Path, header: str, voxels: bytes) -> Path:
    path.write_bytes(header.encode() + voxels)
    return path


def _short(ending: str, lines: str, voxels: bytes) -> tuple[str, str, bytes]:
    return ending, (f"{META}{lines}ElementDataFile = LOCAL\n" if ending == ".mha" else f"{NRRD}{lines}\n"), voxels


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (_short(".mha", "", RAW[:-2]), "truncated"),
        (_short(".mha", "CompressedData = True\n", zlib.compress(RAW)[:-6]), "truncated"),
        (_short(".mha", "CompressedData = True\n", zlib.compress(RAW[:-2])), "truncated"),
        (_short(".mha", "CompressedData = True\n", b"x" * 40), "damaged"),
        (_short(".mha", "BinaryData = False\n", TEXT[:-4]), "truncated"),
        (_short(".mha", "ElementSpacing = 1 0 1\n", RAW), "bad-affine"),
        (_short(".mha", "ElementSpacing = 1 1\n", RAW), "bad-header"),
        ((".mha", "NDims = 2\nDimSize = 4 6\nElementType = MET_SHORT\nElementDataFile = LOCAL\n", RAW), "not-3d"),
        ((".mhd", f"{META}ElementDataFile = ../a.raw\n", b""), "missing-file"),
        ((".mhd", f"{META}ElementDataFile = LIST\na.raw\n", b""), "missing-file"),
        (_short(".nrrd", "encoding: raw\n", RAW[:-2]), "truncated"),
        (_short(".nrrd", "encoding: gzip\n", gzip.compress(RAW)[:-9]), "truncated"),
        (_short(".nrrd", "encoding: gzip\n", gzip.compress(RAW)[:-6] + b"123456"), "damaged"),
        (_short(".nrrd", "encoding: bzip2\n", RAW), "encoding"),
        (_short(".nrrd", "encoding: hex\n", RAW.hex().encode()), "encoding"),
        (_short(".nrrd", "encoding: raw\nkinds: complex domain domain\n", RAW), "complex"),
        (_short(".nrrd", "encoding: raw\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n", RAW), "bad-affine"),
        (_short(".nrrd", "encoding: gzip\nsizes: 4000 3000 2000\n", gzip.compress(RAW)), "false-promise"),
        (_short(".nrrd", "encoding: raw\ndimension: 2\nsizes: 4 6\n", RAW), "not-3d"),
        ((".nrrd", "P6 4 3 255\n", RAW), "bad-header"),
        (_short(".nrrd", "encoding: raw\nline skip: 1000000000000000\n", RAW), "truncated"),
        (
            (".mha", f"NDims = 9999\nDimSize = {'1 ' * 9999}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n", RAW),
            "bad-header",
        ),
        (_short(".mha", "BinaryData = False\n", b"1" * 5000), "unreadable"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_fault(made: tuple[str, str, bytes], code: str, tmp_path: Path) -> None:
    ending, header, voxels = made
    with pytest.raises(ImageFileError) as fault:
        read_image([_write(tmp_path / f"a{ending}", header, voxels)])
    assert fault.value.code == code


def test_a_detached_header_finds_its_voxels_behind_another_header(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"0123456789" + RAW)
    for name, header in {
        "a.mhd": f"{META}HeaderSize = 10\nElementDataFile = a.raw\n",
        "b.mhd": f"{META}HeaderSize = -1\nElementDataFile = ./a.raw\n",
        "c.nhdr": f"{NRRD}encoding: raw\nbyte skip: 10\ndata file: a.raw\n",
        "d.nhdr": f"{NRRD}encoding: raw\nbyte skip: -1\ndata file: ./a.raw\n",
    }.items():
        path = _write(tmp_path / name, header, b"")
        np.testing.assert_array_equal(read_image([path]).array[0], _xyz(VOXELS))


@pytest.mark.parametrize("text", [TEXT, TEXT + b"\n", TEXT + b" 7" * 1000])
def test_metaimage_as_text_which_itk_cannot_read(tmp_path: Path, text: bytes) -> None:
    """And no further than there are voxels."""
    path = _write(tmp_path / "a.mha", f"{META}BinaryData = False\nElementDataFile = LOCAL\n", text)
    np.testing.assert_array_equal(read_image([path]).array[0], _xyz(VOXELS))


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("end", [b"", b"\n", b" 7 8 9"])
def test_numbers_that_lie_across_pieces_of_a_text_are_whole(piece_bytes: int, end: bytes) -> None:
    found = np.zeros(VOXELS.size, np.int16)
    assert fill_with_words(found, io.BytesIO(TEXT + end), piece_bytes) == VOXELS.size
    np.testing.assert_array_equal(found, VOXELS.ravel())


def test_a_text_is_read_no_further_than_there_are_voxels() -> None:
    stream = io.BytesIO(TEXT + b" 7" * 1000)
    fill_with_words(np.zeros(VOXELS.size, np.int16), stream, piece_bytes=8)
    assert stream.tell() <= len(TEXT) + 8


def _xyz(array: Sequence) -> np.ndarray:
    return np.asarray(array).transpose(2, 1, 0)
