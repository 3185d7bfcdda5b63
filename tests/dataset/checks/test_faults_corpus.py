"""A corpus of seeded faults: each is found, named with case and cure, and nothing else is invented beside it."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.base.machine import Runtime
from pipeline.dataset.checks import check_case
from pipeline.dataset.checks.check_dataset import find_faults
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.io.image_header import ImageHeader
from tests.dataset.small_datasets import SHAPE, affine, dataset, label, manifest, save, scan, with_case

SERIAL = Runtime(executor="serial")
IMAGE, LABEL = "images/c3.nii.gz", "labels/c3.nii.gz"
Seed = Callable[[Path, Manifest], Manifest | None]


@dataclass(frozen=True)
class Seeded:
    """A fault: `seed` puts it into case c3 of a sound data set; its report must have these traits and words."""

    name: str
    seed: Seed
    severity: str
    code: str
    words: tuple[str, ...]
    case: str = "c3"
    modality: str = "MR"


CORPUS: list[Seeded] = []


def seeded(severity: str, code: str, *words: str, case: str = "c3", modality: str = "MR") -> Callable[[Seed], Seed]:
    def add(seed: Seed) -> Seed:
        name = seed.__name__.removeprefix("_")
        CORPUS.append(Seeded(name, seed, severity, code, words, case, modality))
        return seed

    return add


def header_of(path: Path, change: Callable[[bytearray], None]) -> None:
    """Changes bytes of an uncompressed copy of the header in place."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(bytes(content)))


# Files that cannot be read


@seeded("fatal", "missing-file", "there is no such file", "check the manifest's path")
def _missing_image(root, _):
    (root / IMAGE).unlink()


@seeded("fatal", "empty-file", "the file is empty", "copy or download it again")
def _empty_file(root, _):
    (root / IMAGE).write_bytes(b"")


@seeded("fatal", "truncated", "it is truncated", "copy or download it again")
def _truncated_in_its_voxels(root, _):
    content = (root / IMAGE).read_bytes()
    (root / IMAGE).write_bytes(content[: len(content) // 2])


@seeded("fatal", "truncated", "its compressed data ends too early: it is truncated")
def _truncated_in_its_checksum(root, _):
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:-6])


@seeded("fatal", "damaged", "its compressed data is damaged")
def _one_byte_flipped(root, _):
    content = bytearray((root / IMAGE).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / IMAGE).write_bytes(content)


@seeded("fatal", "truncated", "its header promises 6,720 bytes of voxels, the file holds 3,000", case="c3")
def _truncated_without_compression(root, manifest):
    plain = root / "images/c3.nii"
    save(plain, scan(3))
    plain.write_bytes(plain.read_bytes()[: 352 + 3000])
    return with_case(manifest, 3, images=["images/c3.nii"])


@seeded("fatal", "false-promise", "its header promises 64,000,000,000,000 bytes", "compressed bytes can hold")
def _header_promises_terabytes(root, _):
    header_of(
        root / IMAGE, lambda b: b.__setitem__(slice(40, 56), struct.pack("<8h", 3, 32000, 31250, 16000, 1, 1, 1, 1))
    )


@seeded("fatal", "truncated", "the file holds 6,720: it is truncated")
def _header_promises_twice_as_much(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(42, 44), struct.pack("<h", 2 * SHAPE[0])))


@seeded("fatal", "not-nifti", "it is not a NIfTI file", "convert it to NIfTI")
def _text_under_the_name_of_an_image(root, _):
    (root / IMAGE).write_bytes(gzip.compress(b"<html>404 not found</html>" * 40))


@seeded("fatal", "unknown-kind", "its ending '.jpg' is not one of an image", ".nii.gz")
def _unknown_ending(root, manifest):
    (root / "images/c3.jpg").write_bytes(b"\xff\xd8\xff")
    return with_case(manifest, 3, images=["images/c3.jpg"])


@seeded("fatal", "path", "leaves the data root", "give a path below data.root")
def _path_out_of_the_root(_, manifest):
    return with_case(manifest, 3, images=["../elsewhere.nii.gz"])


@seeded("fatal", "missing-file", "there is no c3.img beside it", "copy both files of the pair")
def _pair_without_its_voxels(root, manifest):
    nib.Nifti1Pair(scan(3), affine()).to_filename(root / "images/c3.hdr")
    (root / "images/c3.img").unlink()
    return with_case(manifest, 3, images=["images/c3.hdr"])


@seeded("fatal", "truncated", "the file holds 1,680: it is truncated")
def _truncated_mha_that_itk_fills_with_zeros(root, manifest):
    write_itk(root / "images/c3.mha", scan(3))
    content = (root / "images/c3.mha").read_bytes()
    (root / "images/c3.mha").write_bytes(content[: -3 * 1680])
    return with_case(manifest, 3, images=["images/c3.mha"])


@seeded("fatal", "truncated", "it is truncated")
def _truncated_compressed_nrrd(root, manifest):
    write_itk(root / "images/c3.nrrd", scan(3), compress=True)
    content = (root / "images/c3.nrrd").read_bytes()
    (root / "images/c3.nrrd").write_bytes(content[: len(content) * 2 // 3])
    return with_case(manifest, 3, images=["images/c3.nrrd"])


def write_itk(path: Path, array: np.ndarray, compress: bool = False) -> None:
    """Writes (X, Y, Z), or (X, Y, Z, C) as numbers of a voxel, on the grid of `making.affine`, which ITK has in LPS."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0, *range(3, array.ndim)), isVector=array.ndim > 3)
    image.SetSpacing([1.0, 1.0, 2.0])
    image.SetOrigin([-5.0, 7.0, 9.0])
    image.SetDirection([-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0])
    sitk.WriteImage(image, str(path), useCompression=compress)


@seeded("fatal", "unreadable", "it cannot be read (Input/output error)", "check its permissions and its disk")
def _disk_that_fails_at_the_voxels_of_a_pair(root, manifest):
    nib.Nifti1Pair(scan(3), affine()).to_filename(root / "images/c3.hdr")
    fails_when_read(root / "images/c3.img")
    return with_case(manifest, 3, images=["images/c3.hdr"])


@seeded("fatal", "unreadable", "it cannot be read (Input/output error)", "check its permissions and its disk")
def _disk_that_fails_at_a_dicom_file(root, manifest):
    (root / "images/c3").mkdir()
    fails_when_read(root / "images/c3/1.2.840.99.dcm")
    return with_case(manifest, 3, images=["images/c3"])


@seeded("fatal", "unreadable", "it cannot be read (File name too long)")
def _name_that_the_system_refuses(_, manifest):
    return with_case(manifest, 3, images=[f"images/{'c' * 300}.nii.gz"])


def fails_when_read(path: Path) -> None:
    """A file that is there and can be opened, and whose bytes the system does not give, as of a failing disk."""
    path.unlink(missing_ok=True)
    path.symlink_to("/proc/self/mem")


# Voxels that cannot be used


@seeded("fatal", "colour", "it holds colours (RGB)", "convert it to grey values")
def _colours(root, _):
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(root / IMAGE, rgb)


@seeded("fatal", "complex", "its voxels are complex numbers", "write the magnitude")
def _complex_numbers(root, _):
    save(root / IMAGE, scan(3).astype(np.complex64))


@seeded("fatal", "4d", "it is 4D with 3 volumes; 1 (scan) are meant", "write the volume that is meant as a 3D file")
def _four_axes_where_three_are_meant(root, _):
    save(root / IMAGE, np.stack([scan(3), scan(30), scan(31)], axis=-1))


@seeded("fatal", "nan", "2 voxels (0.0012 of all) are NaN or infinite", "replace them")
def _nan_and_infinity(root, _):
    array = scan(3)
    array[1, 2, 3], array[4, 5, 6] = np.nan, np.inf
    save(root / IMAGE, array)


@seeded("fatal", "constant", "every voxel is 7: there is nothing to see", "export the image again")
def _constant_image(root, _):
    save(root / IMAGE, np.full(SHAPE, 7, np.int16))


@seeded("fatal", "missing-channel", "1 of 2 channels are there; missing: T2")
def _missing_channel(root, manifest):
    content = manifest.model_dump(mode="json") | {"channels": [{"name": "T1"}, {"name": "T2"}]}
    for i, case in enumerate(content["cases"]):
        if case["id"] != "c3":
            save(root / f"images/c{i}_0001.nii.gz", scan(50 + i))
            case["images"].append(f"images/c{i}_0001.nii.gz")
    return Manifest.model_validate(content)


@seeded("fatal", "extra-channel", "2 images are listed for 1 channel(s) (scan)", "or declare the others")
def _more_images_than_channels(root, manifest):
    save(root / "images/c3_more.nii.gz", scan(77))
    return with_case(manifest, 3, images=[IMAGE, "images/c3_more.nii.gz"])


@seeded("warning", "single-slice", "it has a single slice", "check that a 3D scan is meant")
def _a_single_slice(root, manifest):
    save(root / IMAGE, scan(3)[:, :, 4:5])
    return with_case(manifest, 3, label=None, split="testing")


@seeded("fatal", "colour", "it holds colours (RGB)", "convert it to grey values")
def _colours_with_opacity(root, _):
    save(root / IMAGE, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]))


@seeded("fatal", "colour", "it is a colour image: 3 bytes a voxel, where 1 channel(s) (scan) are meant", "grey values")
def _colours_that_no_header_names(root, manifest):
    write_itk(root / "images/c3.mha", np.stack([scan(3)] * 3, axis=-1).astype(np.uint8))
    return with_case(manifest, 3, images=["images/c3.mha"])


@seeded("fatal", "colour", "it is a colour image: 4 bytes a voxel", "if the bytes are channels, declare each")
def _colours_with_opacity_that_no_header_names(root, manifest):
    write_itk(root / "images/c3.nrrd", np.stack([scan(3)] * 4, axis=-1).astype(np.uint8))
    return with_case(manifest, 3, images=["images/c3.nrrd"])


@seeded("fatal", "colour", "it holds colours (rgb-color), not one number a voxel", "convert it to grey values")
def _colours_that_a_header_names(root, manifest):
    path = root / "images/c3.nrrd"
    write_itk(path, np.stack([scan(3)] * 3, axis=-1).astype(np.uint8))
    path.write_bytes(path.read_bytes().replace(b"kinds: vector", b"kinds: RGB-color"))
    return with_case(manifest, 3, images=["images/c3.nrrd"])


@seeded("fatal", "4d", "it is 4D with 3 volumes; 1 (scan) are meant", "or declare all as channels")
def _three_real_numbers_a_voxel(root, manifest):
    write_itk(root / "images/c3.mha", np.stack([scan(3), scan(30), scan(31)], axis=-1))
    return with_case(manifest, 3, images=["images/c3.mha"])


@seeded("fatal", "colour", "it is a colour image (3 bytes a voxel), not a label map", "one label value a voxel")
def _label_map_in_colours(root, manifest):
    write_itk(root / "labels/c3.mha", np.stack([label()] * 3, axis=-1))
    return with_case(manifest, 3, label="labels/c3.mha")


# Places


@seeded("fatal", "label-grid", "different grids", "shape 14×12×9 instead of 14×12×10", "nearest neighbour")
def _label_of_another_shape(root, _):
    save(root / LABEL, label()[:, :, :9])


@seeded("fatal", "label-grid", "spacing 1×1×1.9 instead of 1×1×2 mm", "copy the image's header onto it; else resample")
def _label_of_another_spacing(root, _):
    save(root / LABEL, label(), affine((1, 1, 1.9)))


@seeded("fatal", "label-grid", "different grids", "an origin that is shifted by (0.00, 3.00, 0.00) mm")
def _label_shifted(root, _):
    save(root / LABEL, label(), affine(origin_mm=(5, -4, 9)))


@seeded("fatal", "label-grid", "different grids", "directions that are turned")
def _label_turned(root, _):
    angle = np.deg2rad(10)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    save(root / LABEL, label(), turn @ affine())


@seeded("fatal", "label-grid", "different grids", "orientation LAS instead of RAS")
def _label_mirrored(root, _):
    save(root / LABEL, label(), np.diag([-1.0, 1, 1, 1]) @ affine())


@seeded("fixable", "forms-disagree", "its sform and qform disagree by up to 4.00 mm; the sform is used")
def _forms_disagree(root, _):
    image = nib.load(root / IMAGE)
    array = np.asarray(image.dataobj)
    image = nib.Nifti1Image(array, image.affine, image.header)
    image.set_qform(affine(origin_mm=(5, -3, 9)), 1)
    image.set_sform(affine(), 1)
    nib.save(image, root / IMAGE)


@seeded("fixable", "bad-qform", "its qform is set, but its numbers place no voxels; the sform is used")
def _quaternion_longer_than_1(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(256, 264), struct.pack("<2f", 1.0, 0.01)))


@seeded("fatal", "bad-header", "its header is damaged: w2 should be positive")
def _quaternion_longer_than_1_and_no_sform(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(254, 264), struct.pack("<h2f", 0, 1.0, 0.01)))


@seeded("fixable", "voxel-size", "voxel sizes (pixdim) of 0×1×2, where each must be above 0; the sform is used")
def _no_voxel_size_beside_an_sform(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(80, 84), struct.pack("<f", 0.0)))


@seeded("fatal", "voxel-size", "voxel sizes (pixdim) of 0×1×2", "no sform places its voxels", "of its source")
def _no_voxel_size_and_no_sform(root, _):
    def change(b: bytearray) -> None:
        b[80:84], b[254:256] = struct.pack("<f", 0.0), struct.pack("<h", 0)

    header_of(root / IMAGE, change)


@seeded("fixable", "unknown-form", "its sform_code 7 is none that NIfTI has", "counts as not set; the qform is used")
def _unknown_code_of_one_form(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(254, 256), struct.pack("<h", 7)))


@seeded("fatal", "unknown-form", "its qform_code 9 and sform_code 7 is none that NIfTI has", "set the code of the form")
def _unknown_codes_of_both_forms(root, _):
    header_of(root / IMAGE, lambda b: b.__setitem__(slice(252, 256), struct.pack("<2h", 9, 7)))


@seeded("fatal", "sheared", "two of them meet at 78.7 instead of 90 degrees", "onto a grid with right angles")
def _sheared(root, _):
    matrix = affine((1, 1, 1))
    matrix[0, 1] = 0.2
    image = nib.Nifti1Image(scan(3), matrix)
    image.header.set_xyzt_units("mm")
    nib.save(image, root / IMAGE)


@seeded("fatal", "bad-affine", "its affine is singular or not finite")
def _singular_affine(root, _):
    image = nib.Nifti1Image(scan(3), affine())
    image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
    nib.save(image, root / IMAGE)


@seeded("fixable", "units", "its lengths are in metres; they are converted to mm")
def _metres(root, _):
    for path in (root / IMAGE, root / LABEL):
        array = np.asarray(nib.load(path).dataobj)
        image = nib.Nifti1Image(array, np.diag([0.001, 0.001, 0.001, 1]) @ affine())
        image.header.set_xyzt_units("meter")
        nib.save(image, path)


@seeded("warning", "extent", "times that of other cases", "check its voxel size, and that it is in mm")
def _centimetres_that_say_millimetres(root, _):
    for path in (root / IMAGE, root / LABEL):
        save(path, np.asarray(nib.load(path).dataobj), affine((0.1, 0.1, 0.2)))


@seeded("warning", "extent", "14×12×200 mm (in voxels of 1×1×20 mm) is 10 times", "head–feet", "check its voxel size")
def _slices_ten_times_as_thick_as_they_are(root, _):
    for path in (root / IMAGE, root / LABEL):
        save(path, np.asarray(nib.load(path).dataobj), affine((1, 1, 20)))


@seeded("warning", "extent", "is 0.1 times that of other cases, head–feet", "check its voxel size")
def _slices_a_tenth_as_thick_as_they_are_in_turned_axes(root, _):
    for path in (root / IMAGE, root / LABEL):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), affine((1, 1, 0.2)))
        turned = image.as_reoriented(nib.orientations.axcodes2ornt("SAL"))
        save(path, np.asarray(turned.dataobj), turned.affine)


# Labels


@seeded("fatal", "undeclared-label", "label value 7 (1 voxels) is not declared", "declared: 0, 1, 2")
def _undeclared_value(root, _):
    array = label()
    array[0, 0, 0] = 7
    save(root / LABEL, array)


@seeded("fatal", "label-not-integer", "for instance 0.5", "nearest-neighbour interpolation")
def _fractions_in_a_label(root, _):
    array = label().astype(np.float32)
    array[3, 3, 3] = 0.5
    save(root / LABEL, array)


@seeded("fatal", "label-not-finite", "1 of its voxels are NaN or infinite; label values are whole numbers")
def _nan_in_a_label(root, _):
    array = label().astype(np.float32)
    array[3, 3, 3] = np.nan
    save(root / LABEL, array)


@seeded("fatal", "label-4d", "it is a label map with 2 volumes; one is meant", "merge them")
def _label_with_four_axes(root, _):
    save(root / LABEL, np.stack([label(), label()], axis=-1))


@seeded("warning", "empty-label", "no structure is labelled in it", "check that this is meant")
def _empty_label(root, _):
    save(root / LABEL, np.zeros(SHAPE, np.uint8))


@seeded("fatal", "no-label", "it is a training case without a label", "set its split to testing")
def _training_without_label(_, manifest):
    return with_case(manifest, 3, label=None)


@seeded("warning", "label-outlier", "tail has 0.744 ml, 15.5 times its usual 0.048 ml", "look at the label map")
def _structure_far_larger_than_usual(root, _):
    array = label()
    array[8:14, :, :5] = 2
    save(root / LABEL, array)


@seeded("warning", "absent-structure", "fin is declared and occurs in no label map", case="all cases")
def _structure_that_no_case_has(_, sound):
    return Manifest.model_validate(sound.model_dump(mode="json") | {"labels": {"head": 1, "tail": 2, "fin": 3}})


# Between cases


@seeded("fatal", "duplicate", "images/c1.nii.gz of c1 (another subject)", "validated on what it was trained on")
def _copy_under_another_name(root, _):
    save(root / IMAGE, scan(1).astype(np.float64))


@seeded("fatal", "duplicate", "it holds the same voxels as images/c1.nii.gz of c1")
def _copy_with_turned_axes(root, _):
    turned = nib.load(root / "images/c1.nii.gz").as_reoriented(nib.orientations.axcodes2ornt("AIL"))
    save(root / IMAGE, np.asarray(turned.dataobj), turned.affine)
    turned = nib.load(root / LABEL).as_reoriented(nib.orientations.axcodes2ornt("AIL"))
    save(root / LABEL, np.asarray(turned.dataobj), turned.affine)


@seeded("fatal", "duplicate", "of c1 (training): a model would be tested on what it was trained on")
def _copy_of_a_training_case_among_the_testing_cases(root, manifest):
    save(root / IMAGE, scan(1))
    return with_case(manifest, 3, split="testing")


@seeded("warning", "duplicate", "it holds the same voxels as images/c1.nii.gz of c1: the scan counts twice")
def _copy_among_the_testing_cases(root, manifest):
    save(root / IMAGE, scan(1))
    return with_case(with_case(manifest, 1, split="testing"), 3, split="testing")


@seeded("warning", "same-label", "it is the same label map as labels/c1.nii.gz of c1, whose image is another one")
def _label_of_another_case(root, _):
    (root / LABEL).write_bytes((root / "labels/c1.nii.gz").read_bytes())


@seeded("fatal", "leak", "its subject p is in testing too (c4)", "put all cases of a subject into one split")
def _subject_in_two_splits(_, manifest):
    return with_case(with_case(manifest, 3, subject="p"), 4, subject="p", split="testing")


@seeded("fixable", "fold-gap", "folds are 0, 2; they are taken as 0, 1", "without gaps", case="all cases")
def _a_fold_without_a_case(_, manifest):
    for i in range(6):
        manifest = with_case(manifest, i, fold=0 if i < 3 else 2)
    return manifest


@seeded("fatal", "changed", "its voxels or its grid are not those that the manifest was made from")
def _not_the_voxels_of_the_manifest(_, manifest):
    return with_case(manifest, 3, voxel_digest={IMAGE: "0" * 64})


@seeded(
    "warning",
    "intensity-shift",
    "its labelled voxels have a median of",
    "Hounsfield units stored with 1024 added?",
    modality="CT",
)
def _hounsfield_units_shifted(root, _):
    save(root / IMAGE, scan(3) * 5 - 500 + 1024)


@seeded(
    "warning",
    "intensity-scale",
    "times as widely as those of other cases",
    "export it again without rescaling",
    modality="CT",
)
def _hounsfield_units_rescaled(root, _):
    save(root / IMAGE, (scan(3) * 5 - 500) / 1000)


@seeded("warning", "intensity-scale", "its values span", "for PET: SUV", modality="PET")
def _becquerel_among_suv(root, _):
    save(root / IMAGE, scan(3) * 4000)


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_seeded_fault_is_found_and_nothing_else(entry: Seeded, tmp_path: Path) -> None:
    sound = dataset(tmp_path, modality=entry.modality)
    faults = find_faults(entry.seed(tmp_path, sound) or sound, tmp_path, SERIAL)
    assert {(fault.case, fault.severity, fault.code) for fault in faults} == {(entry.case, entry.severity, entry.code)}
    text = str(faults[0])
    assert all(word in text for word in entry.words), text
    assert entry.case in text
    assert faults[0].cure
    assert str(tmp_path) not in text


def test_the_name_of_a_dicom_file_that_cannot_be_read_is_not_said(tmp_path: Path) -> None:
    faults = find_faults(_disk_that_fails_at_a_dicom_file(tmp_path, dataset(tmp_path)), tmp_path, SERIAL)
    assert not [fault for fault in faults if "1.2.840" in str(fault)]


def test_a_case_that_memory_does_not_hold_is_a_fault_of_that_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, read = dataset(tmp_path), check_case.image_voxels

    def image_voxels(header: ImageHeader) -> np.ndarray:
        if header.path.name == "c3.nii.gz":
            raise MemoryError
        return read(header)

    monkeypatch.setattr(check_case, "image_voxels", image_voxels)
    (fault,) = find_faults(sound, tmp_path, SERIAL)
    assert (fault.case, fault.severity, fault.code) == ("c3", "fatal", "memory")


def test_what_lacked_memory_is_told_from_what_is_faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is worth another try with nothing beside it, the other is not."""
    sound = dataset(tmp_path, cases=1)
    task = check_case.CheckTask(sound.cases[0], sound, tmp_path)
    with monkeypatch.context() as little:
        little.setattr("pipeline.io.check_image_header.available_memory_gib", lambda: 1e-6)
        finding = check_case.check_case(task)
    assert "larger-than-memory" in {fault.code for fault in finding.faults}
    assert finding.out_of_memory
    (tmp_path / "images/c0.nii.gz").write_bytes(b"")
    assert check_case.check_case(task).fatal
    assert not check_case.check_case(task).out_of_memory


def test_a_case_whose_process_was_killed_is_a_fault_of_that_case(tmp_path: Path) -> None:
    sound = dataset(tmp_path, cases=1)
    finding = check_case.finding_for_killed_worker(check_case.CheckTask(sound.cases[0], sound, tmp_path))
    assert finding.measured is None
    assert [(fault.case, fault.severity, fault.code) for fault in finding.faults] == [("c0", "fatal", "memory")]


@pytest.mark.parametrize(
    ("unit", "factor", "apart", "codes"),
    [("meter", 0.001, 0.02, {"units", "forms-disagree"}), ("micron", 1000.0, 50.0, {"units"})],
)
def test_forms_are_compared_in_mm(unit: str, factor: float, apart: float, codes: set[str], tmp_path: Path) -> None:
    """0.02 m are 20 mm, 50 micrometres 0.05 mm: above and below the tolerance of 0.1 mm."""
    sound, scale = dataset(tmp_path), np.diag([factor, factor, factor, 1])
    for path in (tmp_path / IMAGE, tmp_path / LABEL):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), scale @ affine())
        shifted = image.affine.copy()
        shifted[0, 3] += apart
        image.set_qform(shifted, 1)
        image.set_sform(image.affine, 1)
        image.header.set_xyzt_units(unit)
        nib.save(image, path)
    faults = find_faults(sound, tmp_path, SERIAL)
    assert {fault.code for fault in faults} == codes
    assert all("up to 20.00 mm" in fault.found for fault in faults if fault.code == "forms-disagree")


def test_data_without_a_case_to_train_on_is_not_fine(tmp_path: Path) -> None:
    (empty,) = find_faults(manifest(0), tmp_path, SERIAL)
    assert (empty.case, empty.severity, empty.code) == ("all cases", "fatal", "no-case")
    scans = with_case(dataset(tmp_path, cases=1), 0, split="testing")
    assert find_faults(scans, tmp_path, SERIAL) == ()
    (fault,) = find_faults(scans, tmp_path, SERIAL, to_train=True)
    assert (fault.case, fault.severity, fault.code) == ("all cases", "fatal", "no-training-case")


def test_corpus_is_large() -> None:
    assert len(CORPUS) >= 25


def test_a_long_scan_with_the_voxels_of_the_others_is_sound(tmp_path: Path) -> None:
    """A whole body among chests: seven times as long."""
    sound = dataset(tmp_path, cases=8)
    shape = (SHAPE[0], SHAPE[1], 7 * SHAPE[2])
    save(tmp_path / IMAGE, scan(3, shape))
    save(tmp_path / LABEL, label(shape))
    assert find_faults(sound, tmp_path, SERIAL) == ()


@pytest.mark.parametrize("modality", ["MR", "CT", "PET"])
def test_sound_data_has_no_faults(modality: str, tmp_path: Path) -> None:
    assert find_faults(dataset(tmp_path, modality=modality), tmp_path, SERIAL) == ()


def test_two_faults_of_two_cases_are_both_named(tmp_path: Path) -> None:
    sound = dataset(tmp_path)
    _empty_file(tmp_path, sound)
    save(tmp_path / "labels/c5.nii.gz", label()[:, :, :9])
    assert [(fault.case, fault.code) for fault in find_faults(sound, tmp_path, SERIAL)] == [
        ("c3", "empty-file"),
        ("c5", "label-grid"),
    ]


def test_the_tolerance_of_grids_is_in_mm_and_can_be_set(tmp_path: Path) -> None:
    """The label lies 0.3 mm off: a fault by default (0.1 mm), none where 0.5 mm are allowed."""
    sound = dataset(tmp_path)
    save(tmp_path / LABEL, label(), affine(origin_mm=(5, -7.3, 9)))
    assert [fault.code for fault in find_faults(sound, tmp_path, SERIAL)] == ["label-grid"]
    assert find_faults(sound, tmp_path, SERIAL, grid_tolerance_mm=0.5) == ()


def test_a_structure_that_one_case_of_many_lacks(tmp_path: Path) -> None:
    sound = dataset(tmp_path, cases=11)
    only_head = label()
    only_head[only_head == 2] = 0
    save(tmp_path / LABEL, only_head)
    (fault,) = find_faults(sound, tmp_path, SERIAL)
    assert (fault.case, fault.severity, fault.code) == ("c3", "warning", "missing-structure")
    assert "tail is not labelled; it is in 10 of 11 cases" in fault.found


def test_one_image_for_two_channels(tmp_path: Path) -> None:
    dataset(tmp_path, cases=1)
    (tmp_path / "images/again.nii.gz").write_bytes((tmp_path / "images/c0.nii.gz").read_bytes())
    two = with_case(
        manifest(1, channels=[{"name": "T1"}, {"name": "T2"}]),
        0,
        images=["images/c0.nii.gz", "images/again.nii.gz"],
    )
    (fault,) = find_faults(two, tmp_path, SERIAL)
    assert (fault.severity, fault.code) == ("warning", "same-channel")
    assert "it holds the same voxels as images/c0.nii.gz" in fault.found


def test_bytes_of_a_voxel_that_are_declared_are_channels(tmp_path: Path) -> None:
    dataset(tmp_path, cases=1)
    write_itk(tmp_path / "images/c0.mha", np.stack([scan(i) for i in range(3)], axis=-1).astype(np.uint8))
    three = manifest(1, channels=[{"name": name} for name in ("T1", "T2", "PD")])
    assert find_faults(with_case(three, 0, images=["images/c0.mha"]), tmp_path, SERIAL) == ()


def test_another_value_than_0_for_the_background(tmp_path: Path) -> None:
    """255 around the structures: undeclared, and what to do about it is not to declare it."""
    sound = dataset(tmp_path, cases=1)
    save(tmp_path / "labels/c0.nii.gz", np.where(label() == 0, 255, label()).astype(np.uint8))
    faults = {fault.code: fault for fault in find_faults(sound, tmp_path, SERIAL)}
    assert {code: fault.severity for code, fault in faults.items()} == {
        "undeclared-label": "fatal",
        "no-background": "warning",
    }
    assert "no voxel has the value 0, which is background; most have 255" in faults["no-background"].found
    assert "if 255 stands for background there, set it to 0 in the label maps" in faults["no-background"].cure


def test_ignored_voxels_are_not_suspected_to_be_background(tmp_path: Path) -> None:
    """Of a map in which few voxels were labelled: the advice to set the others to 0 would teach that they are none."""
    dataset(tmp_path, cases=1)
    save(tmp_path / "labels/c0.nii.gz", np.where(label() == 0, 255, label()).astype(np.uint8))
    (fault,) = find_faults(manifest(1, ignore_label=255), tmp_path, SERIAL)
    assert fault.code == "no-background" and "most have 1" in fault.found and "255" not in fault.cure


@pytest.mark.parametrize(("noise", "codes"), [(2e-7, set()), (5e-4, set()), (2e-3, {"label-not-integer"})])
def test_rounding_noise_on_label_values(noise: float, codes: set[str], tmp_path: Path) -> None:
    """1.0000001 is 1, as programs that calculate in floating point write it; 1.002 is something else."""
    sound = dataset(tmp_path, cases=1)
    save(tmp_path / "labels/c0.nii.gz", np.where(label() > 0, label() + noise, 0).astype(np.float32))
    faults = find_faults(sound, tmp_path, SERIAL)
    assert {fault.code for fault in faults} == codes
    assert all("for instance 1.002" in fault.found for fault in faults)


def test_voxels_that_no_scanner_makes(tmp_path: Path) -> None:
    dataset(tmp_path, cases=1)
    for path in (tmp_path / "images/c0.nii.gz", tmp_path / "labels/c0.nii.gz"):
        save(path, np.asarray(nib.load(path).dataobj), affine((60, 60, 60)))
    faults = find_faults(manifest(1), tmp_path, SERIAL)
    assert {fault.code for fault in faults} == {"spacing"}
    assert "a voxel of 60×60×60 mm is hardly one of a patient" in faults[0].found


def test_a_ct_without_air_is_not_in_hounsfield_units(tmp_path: Path) -> None:
    sound = dataset(tmp_path, modality="CT")
    for i in range(6):
        save(tmp_path / f"images/c{i}.nii.gz", np.abs(scan(i)))
    (fault,) = find_faults(sound, tmp_path, SERIAL)
    assert (fault.case, fault.code) == ("all cases", "not-hounsfield")


def ct(seed: int, outside: int = 0) -> np.ndarray:
    """Labelled voxels of 40 HU in a body of -100 HU, with `outside` planes of air at either end of the first axis."""
    noise, array = np.random.default_rng(seed).normal(0, 10, SHAPE), np.full(SHAPE, -100.0)
    array[label() > 0], array[:outside], array[SHAPE[0] - outside :], array[:, :, -1] = 40, -1000, -1000, -1000
    return (array + noise).astype(np.float32)


def test_a_ct_without_labels_is_held_to_whole_images(tmp_path: Path) -> None:
    """Most of a CT is not labelled, so its median is another one: only a shifted scan is named, no tight one."""
    sound = dataset(tmp_path, cases=9, modality="CT")
    for i in range(9):
        save(tmp_path / f"images/c{i}.nii.gz", ct(i, outside=2 if i in {7, 8} else 5))
    for i in (6, 7, 8):
        sound = with_case(sound, i, label=None, split="testing")
    assert find_faults(sound, tmp_path, SERIAL) == ()
    save(tmp_path / "images/c6.nii.gz", ct(6, outside=5) + 1024)
    (fault,) = find_faults(sound, tmp_path, SERIAL)
    assert (fault.case, fault.code) == ("c6", "intensity-shift")
    assert "its voxels have a median of " in fault.found and "labelled" not in fault.found


def test_no_orientation_is_settled_by_rule(tmp_path: Path) -> None:
    sound = dataset(tmp_path)
    for path in (tmp_path / IMAGE, tmp_path / LABEL):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None)
        image.header.set_zooms((1.0, 1.0, 2.0))
        nib.save(image, path)
    faults = find_faults(sound, tmp_path, SERIAL)
    assert {(fault.code, fault.severity) for fault in faults} == {("no-orientation", "fixable")}
    assert "neither sform nor qform is set, so left and right cannot be told" in faults[0].found


def test_one_subject_in_two_folds(tmp_path: Path) -> None:
    split = dataset(tmp_path)
    split = with_case(with_case(split, 0, subject="p", fold=0), 1, subject="p", fold=1)
    faults = find_faults(split, tmp_path, SERIAL)
    assert {(fault.case, fault.code) for fault in faults} == {("c0", "leak"), ("c1", "leak")}
    assert "validated in more than one fold (c0 in fold 0, c1 in fold 1)" in faults[0].found


def test_a_copy_of_the_same_subject_is_a_warning(tmp_path: Path) -> None:
    sound = dataset(tmp_path)
    save(tmp_path / IMAGE, scan(1))
    own = with_case(with_case(sound, 1, subject="p"), 3, subject="p")
    assert [(fault.case, fault.severity) for fault in find_faults(own, tmp_path, SERIAL)] == [("c3", "warning")]


def test_channel_on_another_grid_is_resampled_when_asked(tmp_path: Path) -> None:
    dataset(tmp_path, cases=1)
    save(tmp_path / "images/c0_pet.nii.gz", scan(9, (7, 6, 10)), affine((2, 2, 2), (5.5, -6.5, 9)))
    two = manifest(1, channels=[{"name": "MR"}, {"name": "PET", "modality": "PET"}])
    two = with_case(two, 0, images=["images/c0.nii.gz", "images/c0_pet.nii.gz"])
    refused = find_faults(two, tmp_path, SERIAL)
    assert [(fault.code, fault.severity) for fault in refused] == [("channel-grid", "fatal")]
    assert "load.resample_channels: true" in refused[0].cure
    asked = find_faults(two, tmp_path, SERIAL, resample_channels=True)
    assert [(fault.code, fault.severity) for fault in asked] == [("channel-grid", "fixable")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msd_task04_hippocampus", "openkbp", "sts_multi"])
def test_clean_data_has_no_faults(name: str, repository: Path, segpipe_data: Path) -> None:
    folder = {"msd_task04_hippocampus": "hippocampus"}.get(name, name)
    shipped = read_manifest(repository / "data_manifests" / f"{name}.json")
    assert find_faults(shipped, segpipe_data / folder, Runtime()) == ()


@pytest.mark.parametrize(("series", "code", "words"), [("missing", "dicom-gap", "slice"), ("mixed", "dicom-mixed", "")])
def test_dicom_series_with_missing_slice_or_mixed(
    series: str, code: str, words: str, segpipe_data: Path, tmp_path: Path
) -> None:
    first, other = (sorted((segpipe_data / "hippocampus_dicom" / name).glob("*.dcm")) for name in ("11", "13"))
    (tmp_path / "scan").mkdir()
    chosen = [*first[:10], *first[11:]] if series == "missing" else [*first, *other[:5]]
    for i, path in enumerate(chosen):
        (tmp_path / f"scan/{i}.dcm").write_bytes(path.read_bytes())
    case = {"id": "c3", "images": ["scan"], "split": "testing"}
    faults = find_faults(
        Manifest.model_validate({"name": "d", "channels": [{"name": "T1"}], "cases": [case]}), tmp_path, SERIAL
    )
    assert [(fault.case, fault.severity, fault.code) for fault in faults] == [("c3", "fatal", code)]
    assert words in faults[0].found
