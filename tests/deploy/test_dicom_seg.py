"""DICOM-SEG lies where the mask lies, seen with other eyes, and an object that does not is never written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import EXIT_DONE, EXIT_USAGE, DataError
from pipeline.cli import main
from pipeline.config.package import CodedConcept, LabelConfig
from pipeline.deploy import dicom_seg
from pipeline.deploy.dicom_seg import frames_of, without_dicom_seg, write_dicom_seg, write_dicom_segs
from pipeline.deploy.list_scans import list_scans
from pipeline.deploy.predict import predict
from pipeline.inference.segmentation_jobs import CaseResult
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label
from pipeline.packaging.label_metadata import Label, make_labels
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

HIPPOCAMPUS = CodedConcept(value="5366008", meaning="Hippocampus")
LABELS = make_labels(
    {"anterior": (1,), "posterior": (2,), "absent": (3,)},
    {"anterior": LabelConfig(type=HIPPOCAMPUS, color=(230, 20, 70))},
)


@pytest.fixture
def series(segpipe_data: Path) -> Path:
    return segpipe_data / "hippocampus_dicom" / "11"


def _mask(series: Path) -> Volume:
    """Two blocks, off the centre along every axis, so that any flip would show."""
    image = read_image([series])
    array = np.zeros(image.grid.shape, np.uint8)
    array[3:9, 5:20, 2:8] = 1
    array[20:30, 30:33, 25:37] = 2
    return image.with_array(array)


def test_a_viewer_finds_each_voxel_where_the_mask_has_it(series: Path, tmp_path: Path) -> None:
    """Read back with highdicom's own reader, resampled by nobody: the label array and its affine are the mask's."""
    mask = _mask(series)
    write_dicom_seg(tmp_path / "seg.dcm", mask, series, LABELS, "small 1.0.0")
    found = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    lps_to_ras = np.diag([-1.0, -1, 1, 1])
    for index in np.argwhere(found.array > 0)[::37]:
        world = lps_to_ras @ found.affine @ [*index, 1]
        voxel = np.rint(np.linalg.inv(mask.grid.affine) @ world)[:3].astype(int)
        assert mask.array[tuple(voxel)] == found.array[tuple(index)]
    assert (found.array > 0).sum() == (mask.array > 0).sum()


def test_segments_say_what_they_are(series: Path, tmp_path: Path) -> None:
    write_dicom_seg(tmp_path / "seg.dcm", _mask(series), series, LABELS, "small 1.0.0")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    first, second = dataset.SegmentSequence  # the absent structure is left out
    assert (first.SegmentNumber, first.SegmentLabel, second.SegmentLabel) == (1, "anterior", "posterior")
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmFamilyCodeSequence[0].CodeValue) == ("small 1.0.0", "123110")
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"  # anatomical structure
    assert first.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    source = pydicom.dcmread(next(series.iterdir()), stop_before_pixels=True)
    assert dataset.PatientID == source.PatientID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_a_single_structure_in_a_single_slice(series: Path, tmp_path: Path) -> None:
    """Then what differs between frames elsewhere is said once for all of them."""
    image = read_image([series])
    array = np.zeros(image.grid.shape, np.uint8)
    array[3:9, 5:20, 7] = 1
    write_dicom_seg(tmp_path / "seg.dcm", image.with_array(array), series, LABELS, "small 1.0.0")
    assert pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.sum() == 6 * 15


def test_structures_that_share_values_become_overlapping_segments(series: Path, tmp_path: Path) -> None:
    labels = make_labels({"whole": (1, 2), "posterior": (2,)}, {})
    write_dicom_seg(tmp_path / "seg.dcm", _mask(series), series, labels, "small 1.0.0")
    found = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=False).array
    assert found.sum(axis=(0, 1, 2)).tolist() == [6 * 15 * 6 + 10 * 3 * 12, 10 * 3 * 12]


MIRRORS = {"slices": np.s_[::-1], "rows": np.s_[:, ::-1], "columns": np.s_[:, :, ::-1]}


def mirrored(axis: str) -> Callable[[np.ndarray, Sequence[Label]], np.ndarray]:
    """A fault in how frames are made."""
    return lambda array, labels: frames_of(array, labels)[MIRRORS[axis]]


@pytest.mark.parametrize("axis", MIRRORS)
def test_an_object_that_is_mirrored_is_not_written(axis: str, series: Path, tmp_path: Path) -> None:
    """What happened to others for eight months: the rows upside down."""
    with pytest.raises(DataError, match=r"segment anterior would lie \d+\.\d mm from its mask"):
        write_dicom_seg(tmp_path / "seg.dcm", _mask(series), series, LABELS, "small 1.0.0", mirrored(axis))
    assert not (tmp_path / "seg.dcm").exists()


def test_a_mirrored_segment_whose_centroid_stays_is_not_written(series: Path, tmp_path: Path) -> None:
    """Columns 10, 16, 18 and 22 of 34 have their middle in the image's; mirrored they are 23, 17, 15 and 11."""
    image = read_image([series])
    array = np.zeros(image.grid.shape, np.uint8)
    array[[10, 16, 18, 22], 10:12, 4] = 1
    with pytest.raises(DataError, match="8 of its 8 pixels would lie outside its mask of 8 voxels"):
        write_dicom_seg(
            tmp_path / "seg.dcm", image.with_array(array), series, LABELS, "small 1.0.0", mirrored("columns")
        )
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize("characters", [["", "ISO 2022 IR 87"], "ISO_IR 6", "ISO_IR 100"])
def test_a_name_is_kept_whatever_characters_the_series_is_written_in(
    series: Path, tmp_path: Path, characters: str | list[str]
) -> None:
    """The usual header of Japan, whose first value is empty, is none that highdicom takes over."""
    patient = "Yamada^Tarou=山田^太郎" if isinstance(characters, list) else "Muller^Hans"
    (tmp_path / "series").mkdir()
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = characters, patient
        dataset.save_as(tmp_path / "series" / path.name)
    labels = make_labels({"Großhirn": (1,), "posterior": (2,)}, {})
    write_dicom_seg(tmp_path / "seg.dcm", _mask(series), tmp_path / "series", labels, "small 1.0.0")
    found = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (str(found.PatientName), found.SegmentSequence[0].SegmentLabel) == (patient, "Großhirn")
    assert "small 1.0.0" in found.SeriesDescription


def test_another_series_is_refused(series: Path, tmp_path: Path) -> None:
    other = series.with_name("13")
    with pytest.raises(DataError, match="does not lie on the grid"):
        write_dicom_seg(tmp_path / "seg.dcm", _mask(series), other, LABELS, "small 1.0.0")


def test_nothing_found_is_said(series: Path, tmp_path: Path) -> None:
    image = read_image([series])
    empty = image.with_array(np.zeros(image.grid.shape, np.uint8))
    with pytest.raises(DataError, match="no structure was found"):
        write_dicom_seg(tmp_path / "seg.dcm", empty, series, LABELS, "small 1.0.0")


REAL_SERIES = ("hippocampus_dicom/11", "hippocampus_dicom/13", "totalseg/dicom_ct")


@pytest.mark.parametrize("name", REAL_SERIES)
def test_each_frame_refers_to_the_slice_whose_place_it_has(name: str, segpipe_data: Path, tmp_path: Path) -> None:
    """Real series: MR with ascending files; CT whose files run from head to feet, and whose identifiers are blank."""
    folder = segpipe_data / name
    image = read_image([folder])
    array = np.zeros(image.grid.shape, np.uint8)
    array[4:9, 5:20, 2:8] = 1
    array[20:30, 30:33, 11:17] = 2
    write_dicom_seg(tmp_path / "seg.dcm", image.with_array(array), folder, LABELS, "small 1.0.0")
    places = {}
    for path in folder.iterdir():
        source = pydicom.dcmread(path, stop_before_pixels=True)
        places[source.file_meta.MediaStorageSOPInstanceUID] = source.ImagePositionPatient
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    lps_to_voxel = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.grid.affine)
    for pixels, groups in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert position == places[referenced]
        z = round(float((lps_to_voxel @ [*position, 1])[2]))
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal(pixels, (array[:, :, z] == number).T)
    assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert all(written[keyword].value for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))


def test_objects_of_a_scan_without_identifiers_are_of_one_study(segpipe_data: Path, tmp_path: Path, caplog) -> None:
    """The CT series names no study: what is made up depends on the scan only, and the user is told."""
    folder = segpipe_data / "totalseg" / "dicom_ct"
    image = read_image([folder])
    array = np.zeros(image.grid.shape, np.uint8)
    array[100:110, 200:230, 3:5] = 1
    caplog.set_level("WARNING", dicom_seg.log.name)
    dicom_seg.log.addHandler(caplog.handler)  # the commands of other tests end propagation
    studies = set()
    for name in ("one.dcm", "two.dcm"):
        write_dicom_seg(tmp_path / name, image.with_array(array), folder, LABELS, "small 1.0.0")
        studies.add(pydicom.dcmread(tmp_path / name).StudyInstanceUID)
    dicom_seg.log.removeHandler(caplog.handler)
    assert len(studies) == 1
    assert "names no study" in caplog.text


def test_a_series_without_its_class_is_refused_with_the_reason(series: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mr"
    folder.mkdir()
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.SOPClassUID
        del dataset.file_meta.MediaStorageSOPClassUID
        dataset.save_as(folder / path.name)
    with pytest.raises(DataError, match=r"lacks what DICOM-SEG needs .*the NIfTI file is complete"):
        write_dicom_seg(tmp_path / "seg.dcm", _mask(folder), folder, LABELS, "small 1.0.0")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_package(tmp_path_factory.mktemp("package") / "model")


@pytest.mark.slow
def test_predict_writes_it_beside_the_segmentation_of_each_series(series: Path, package: Path, tmp_path: Path) -> None:
    """Two series and a NIfTI file: the same voxels in CASE.dcm as in CASE.nii.gz, and none for what was no series."""
    source, output = tmp_path / "in", tmp_path / "out"
    for name in ("11", "13"):
        shutil.copytree(series.parent / name, source / name)
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(0, 99, (34, 48, 30)), np.eye(4)), source / "x.nii.gz")
    arguments = ["predict", "--model", str(package), "--input", str(source), "--output", str(output), "--device", "cpu"]
    assert main([*arguments, "--dicom-seg"]) == EXIT_DONE
    names = {path.name for path in output.iterdir() if path.suffix == ".dcm"}
    segmentations = {path.name.removesuffix(".nii.gz") for path in output.glob("*.nii.gz")}
    assert len(segmentations) == 3
    assert names == {f"{case}.dcm" for case in segmentations - {"x"}}
    for name in names:
        mask = read_label(output / name.replace(".dcm", ".nii.gz")).array
        found = highdicom.seg.segread(output / name)
        assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["anterior", "posterior"]
        voxels = found.get_volume(combine_segments=False).array.sum(axis=(0, 1, 2)).tolist()
        assert voxels == [(mask == 1).sum(), (mask == 2).sum()]


@pytest.mark.slow
def test_predict_to_one_file_names_it_after_that_file_and_says_where_there_is_no_series(
    series: Path, package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [CaseResult("11", "done")]
    predict(package, series, tmp_path / "found.nii.gz", "cpu", isolated=False)
    scans = list_scans(series, ["T1"])
    done_too = [CaseResult(scans[0].id, "done")]
    assert write_dicom_segs(scans, tmp_path / "found.nii.gz", done_too, load_package(package)) == done_too
    assert (tmp_path / "found.dcm").is_file()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "11.nii.gz")
    caplog.set_level("INFO", "pipeline")
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)  # commands of other tests end it
    no_series = list_scans(tmp_path / "11.nii.gz", ["T1"])
    assert write_dicom_segs(no_series, tmp_path, done, load_package(package)) == done
    assert "none of the segmented scans is a DICOM series" in caplog.text


def test_a_segmentation_without_any_structure_is_named_and_counted(series: Path, package: Path, tmp_path: Path) -> None:
    (scan,) = list_scans(series, ["T1"])
    image = read_image([series])
    write_label(tmp_path / f"{scan.id}.nii.gz", image.with_array(np.zeros(image.grid.shape, np.uint8)))
    (tmp_path / f"{scan.id}.dcm").write_bytes(b"of an earlier call")
    done = [CaseResult(scan.id, "done", "unlike the others")]
    (result,) = write_dicom_segs([scan], tmp_path, done, load_package(package))
    assert result.message.startswith("unlike the others; no DICOM-SEG: ") and "no structure was found" in result.message
    assert without_dicom_seg([result]) == 1 and without_dicom_seg(done) == 0
    assert not list(tmp_path.glob("*.dcm"))


def test_a_missing_extra_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.deploy.dicom_seg.find_spec", lambda name: None)
    arguments = ["predict", "--model", str(tmp_path), "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--dicom-seg"]) == EXIT_USAGE
    assert "pip install 'segpipe[dicom]'" in capsys.readouterr().err
