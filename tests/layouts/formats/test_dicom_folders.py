"""Folders of DICOM series: nothing that identifies a person gets out."""

import shutil

import pytest
import SimpleITK as sitk

from pipeline.base.errors import DataError
from pipeline.layouts.formats.dicom_folders import has_series, read
from pipeline.layouts.init.init_dataset import init_dataset

PATIENT, UID = "Granger^Hermione", "1.2.826.0.1.3680043.2.1125.77"


def series(folder, patient=PATIENT, patient_id="HG-1979", uid=UID, slices=3):
    """A series of small slices with a patient's name in it."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(slices):
        one = sitk.Image(6, 5, sitk.sitkInt16)
        tags = {
            "0008|0060": "CT",
            "0008|0018": f"{uid}.{number + 1}",
            "0020|000e": uid,
            "0020|000d": f"{uid}.0",
            "0020|0013": str(number),
            "0020|0032": f"0\\0\\{number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0010|0010": patient,
            "0010|0020": patient_id,
        }
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(one)
    return folder


def test_each_folder_is_a_case_and_ids_only_count(tmp_path):
    series(tmp_path / "b")
    series(tmp_path / "a", uid=UID + "1")
    series(tmp_path / "c", patient="Weasley^Ron", patient_id="RW-1980", uid=UID + "2")
    found = read(tmp_path)
    assert [(case.id, case.subject, case.images[0].name, case.split) for case in found.cases] == [
        ("series_001", "patient_001", "a", "testing"),
        ("series_002", "patient_001", "b", "testing"),
        ("series_003", "patient_002", "c", "testing"),
    ]
    assert [(channel.name, channel.modality) for channel in found.channels] == [("CT", "CT")]
    assert not found.paths_identify
    assert not any(word in repr(found) for word in ("Granger", "HG-1979", UID))


@pytest.mark.parametrize("name", ["hermione_granger", "HG1979", f"series_{UID}"])
def test_folder_names_that_identify_are_noticed(tmp_path, name):
    series(tmp_path / "data" / name)
    assert read(tmp_path / "data").paths_identify


def test_mixed_series_are_listed_and_end_nothing(tmp_path):
    series(tmp_path / "data" / "mixed")
    for file in series(tmp_path / "data" / "other", uid=UID + "9").iterdir():
        shutil.copy(file, tmp_path / "data" / "mixed" / f"other_{file.name}")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [case.id for case in result.dataset.cases] == ["series_001", "series_002"]
    (problem,) = result.problems
    assert problem.where == "series_001"
    assert "the folder holds 2 DICOM series, of 3 and 3 files; give each series its own folder" in problem.what


def test_a_data_folder_named_by_the_patient_gives_no_name(tmp_path):
    series(tmp_path / "Hermione" / "ct")
    found = read(tmp_path / "Hermione")
    assert found.paths_identify
    assert found.name == "DICOM series"


def test_anonymous_series_are_patients_of_their_own(tmp_path):
    for name in ("a", "b"):
        series(tmp_path / name, patient="", patient_id="", uid=f"{UID}.{ord(name)}")
    found = read(tmp_path)
    assert [case.subject for case in found.cases] == ["patient_001", "patient_002"]
    assert not found.paths_identify


def test_no_series_is_refused(tmp_path):
    assert not has_series(tmp_path)
    with pytest.raises(DataError, match="no folder in it holds DICOM files"):
        read(tmp_path)


def test_real_series(segpipe_data):
    found = read(segpipe_data / "hippocampus_dicom")
    assert [(case.id, case.images[0].name) for case in found.cases] == [("series_001", "11"), ("series_002", "13")]
    assert "Dumbledore" not in repr(found)
