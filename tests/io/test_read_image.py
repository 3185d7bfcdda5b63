"""Reading and writing every kind of file: values, grid and header come back as they were."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.image_file_names import case_id, image_ending
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.io.read_label import read_label
from pipeline.io.scan_digests import voxel_digest
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label
from tests.dataset.small_datasets import affine, label, save, scan


def oblique(spacing_mm: tuple[float, float, float] = (0.9, 1.1, 2.5)) -> np.ndarray:
    """A rotation about two axes, anisotropic voxels, an origin off zero."""
    a, b = np.deg2rad(17), np.deg2rad(-8)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x @ np.diag(spacing_mm)
    matrix[:3, 3] = (-31.5, 12.25, 80.125)
    return matrix


def write_any(path: Path, array: np.ndarray, matrix: np.ndarray) -> None:
    """With the library that owns the kind of file, not with ours."""
    if path.suffix in {".nrrd", ".mha", ".mhd", ".nhdr"}:
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        lps = np.diag([-1, -1, 1, 1]) @ matrix
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        sitk.WriteImage(image, str(path))
    elif path.suffix in {".mgz", ".mgh"}:
        nib.MGHImage(array, matrix).to_filename(path)
    elif path.suffix in {".hdr", ".img"}:
        nib.Nifti1Pair(array, matrix).to_filename(path)
    else:
        nib.Nifti1Image(array, matrix).to_filename(path)


KINDS = ("a.nii", "a.nii.gz", "a.hdr", "a.img", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz", "a.mgh")


@pytest.mark.parametrize("name", KINDS)
def test_voxels_and_place_of_every_kind(name: str, tmp_path: Path) -> None:
    array = scan(1, (5, 6, 7))
    write_any(tmp_path / name, array, oblique())
    volume = read_image([tmp_path / name])
    assert np.array_equal(volume.array, array[None])
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.grid.affine, oblique(), atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_labels_of_every_kind(name: str, tmp_path: Path) -> None:
    write_any(tmp_path / name, label(), oblique())
    assert np.array_equal(read_label(tmp_path / name).array, label())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr", "a.nrrd", "a.mha"])
def test_label_is_written_on_the_input_grid_in_its_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_any(tmp_path / "in" / name, scan(1), oblique())
    image = read_image([tmp_path / "in" / name])
    write_label(tmp_path / "out" / name, image.with_array(label().astype(np.int64)))
    back = read_label(tmp_path / "out" / name)
    assert np.array_equal(back.array, label())
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.grid.affine, image.grid.affine)


@pytest.mark.parametrize("klass", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (3, 0), (4, 1), (0, 0)])
def test_nifti_forms_come_back_bit_by_bit(klass: type, codes: tuple[int, int], tmp_path: Path) -> None:
    image = klass(scan(1).astype(np.int16), oblique())
    image.set_qform(oblique(), codes[0])
    image.set_sform(oblique() if codes[1] else None, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"made by a scanner"
    image.header["aux_file"] = b"ANON^SOMEBODY"
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, tmp_path / "in.nii.gz")
    write_label(tmp_path / "out.nii.gz", read_image([tmp_path / "in.nii.gz"]).with_array(label()))
    before, after = nib.load(tmp_path / "in.nii.gz").header, nib.load(tmp_path / "out.nii.gz").header
    assert type(before) is type(after)
    for name in ("qform_code", "sform_code", "xyzt_units", "descrip", "srow_x", "srow_y", "srow_z", "quatern_b",
                 "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):  # fmt: skip
        assert np.array_equal(before[name], after[name]), name
    assert np.array_equal(before["pixdim"][:4], after["pixdim"][:4])
    assert after["aux_file"].item() == b""
    with gzip.open(tmp_path / "out.nii.gz") as stream:  # nibabel hides these two when it loads a file
        raw = type(after).from_fileobj(stream)
    assert (raw["scl_slope"], raw["scl_inter"]) == (1, 0)
    assert after.get_data_dtype() == np.uint8


def test_forms_that_disagree_are_both_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(1), oblique())
    image.set_qform(affine(), 2)
    image.set_sform(oblique(), 3)
    nib.save(image, tmp_path / "in.nii.gz")
    volume = read_image([tmp_path / "in.nii.gz"])
    assert np.allclose(volume.grid.affine, oblique(), atol=1e-5)
    write_label(tmp_path / "out.nii.gz", volume.with_array(label()))
    after = nib.load(tmp_path / "out.nii.gz")
    assert np.allclose(after.get_qform(), affine(), atol=1e-5)
    assert np.allclose(after.get_sform(), oblique(), atol=1e-5)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(2, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)]
)
def test_smallest_unsigned_type_that_holds_the_values(largest: int, dtype: type, tmp_path: Path) -> None:
    array = label().astype(np.int32)
    array[0, 0, 0] = largest
    for name in ("a.nii.gz", "a.mha"):
        write_label(tmp_path / name, Volume(array, Grid(array.shape, affine())))
        assert read_image_header(tmp_path / name).dtype == dtype
        assert read_label(tmp_path / name).array.max() == largest


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    write_label(tmp_path / "a.nii.gz", Volume(label(), Grid(label().shape, affine())))
    write_label(tmp_path / "b.hdr", Volume(label(), Grid(label().shape, affine())))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.hdr", "b.img"]


def test_a_qform_that_makes_no_sense_is_given_back_beside_its_sform(tmp_path: Path) -> None:
    path = save(tmp_path / "in.nii", scan(1), oblique())
    content = bytearray(path.read_bytes())
    content[256:264] = np.array([1.0, 0.01], "<f4").tobytes()
    path.write_bytes(content)
    volume = read_image([path])
    assert np.allclose(volume.grid.affine, oblique(), atol=1e-5)
    write_label(tmp_path / "out.nii", volume.with_array(label()))
    assert (tmp_path / "out.nii").read_bytes()[252:328] == content[252:328]
    assert np.array_equal(read_label(tmp_path / "out.nii").grid.affine, volume.grid.affine)


def test_small_voxels_are_not_singular_and_flat_ones_are(tmp_path: Path) -> None:
    small = np.diag([5e-4, 5e-4, 5e-4, 1.0])
    assert read_image_header(save(tmp_path / "a.nii", scan(1), small)).grid.spacing_mm == pytest.approx((5e-4,) * 3)
    flat = nib.Nifti1Image(scan(1), np.array([[100.0, 100, 0, 0], [0, 1e-9, 0, 0], [0, 0, 100, 0], [0, 0, 0, 1]]))
    nib.save(flat, tmp_path / "b.nii")
    with pytest.raises(ImageFileError, match="its affine is singular"):
        read_image_header(tmp_path / "b.nii")


def test_a_kind_that_is_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ImageFileError, match=r"a\.mgz: label maps are not written in this kind of file; name it \.nii\.gz"
    ):
        write_label(tmp_path / "a.mgz", Volume(label(), Grid(label().shape, affine())))


def test_scaling_is_applied_exactly(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine())
    image.header.set_slope_inter(0.5, -1024)
    image.to_filename(tmp_path / "a.nii.gz")
    stored = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(read_image([tmp_path / "a.nii.gz"]).array[0], stored.get_fdata(dtype=np.float32))


def test_scaled_whole_numbers_are_labels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(label() * np.int16(10), affine())
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = np.array([0.1, 0.0], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert np.array_equal(read_label(tmp_path / "a.nii").array, label())


def test_channels_from_four_axes_and_from_files_are_the_same(tmp_path: Path) -> None:
    channels = [scan(1), scan(2), scan(3)]
    paths = [save(tmp_path / f"c_{i:04d}.nii.gz", channel) for i, channel in enumerate(channels)]
    together = save(tmp_path / "c.nii.gz", np.stack(channels, axis=-1))
    assert np.array_equal(read_image(paths).array, read_image([together]).array)
    vector = sitk.GetImageFromArray(np.stack(channels, axis=-1).transpose(2, 1, 0, 3), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "v.nrrd"))
    assert np.array_equal(read_image([tmp_path / "v.nrrd"]).array, np.stack(channels))


def test_big_endian_and_trailing_axes_of_one(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    array = (scan(1)[..., None, None]).astype(">i2")
    nib.save(nib.Nifti1Image(array, affine(), header), tmp_path / "a.nii")
    assert np.array_equal(read_image([tmp_path / "a.nii"]).array[0], array[..., 0, 0].astype(np.float32))


@pytest.mark.parametrize(
    ("name", "ending", "case"),
    [
        ("liver_12_0000.nii.gz", ".nii.gz", "liver_12"),
        ("amos_0004.nii.gz", ".nii.gz", "amos_0004"),
        ("Scan.A.NII.GZ", ".nii.gz", "Scan.A"),
        ("sub-01_T1w.nii", ".nii", "sub-01_T1w"),
        ("kbp_099.mha", ".mha", "kbp_099"),
        ("case_00011.nrrd", ".nrrd", "case_00011"),
        ("_0000.nii.gz", ".nii.gz", "_0000"),
        ("notes.txt", "", "notes.txt"),
    ],
)
def test_case_id_and_ending(name: str, ending: str, case: str) -> None:
    assert image_ending(Path(name)) == ending
    assert case_id(Path(name)) == case


def test_voxel_digest_is_as_defined() -> None:
    array, grid = scan(1), Grid(scan(1).shape, oblique())
    expected = hashlib.sha256()
    expected.update(np.array(array.shape, "<i8").tobytes())
    expected.update(np.round(oblique(), 4).astype("<f8").tobytes())
    expected.update(np.ascontiguousarray(array, "<f4").tobytes())
    assert voxel_digest(array, grid) == voxel_digest(array[None], grid) == expected.hexdigest()


def test_voxel_digest_survives_recompression_and_another_type(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", scan(1).round())
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
    save(tmp_path / "c.nii.gz", scan(1).round().astype(np.int16))
    write_any(tmp_path / "d.mha", scan(1).round(), affine())
    digests = set()
    for name in ("a.nii", "b.nii.gz", "c.nii.gz", "d.mha"):
        volume = read_image([tmp_path / name])
        digests.add(voxel_digest(volume.array, volume.grid))
    assert len(digests) == 1


def test_memory_is_not_taken_for_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.nii.gz", scan(1))
    monkeypatch.setattr("pipeline.io.check_image_header.available_memory_gib", lambda: 1e-6)
    with pytest.raises(
        ImageFileError, match=r"its header promises 14×12×10 voxels, which need .* GiB; 0\.0 GiB are free"
    ):
        read_image([tmp_path / "a.nii.gz"])
