"""Scans in, segmentations out: input forms, names, headers, bad cases, interrupted calls."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.base.errors import ConfigError, DataError
from pipeline.deploy import predict as command
from pipeline.deploy.list_scans import list_scans
from pipeline.deploy.result_tables import results_table, write_results
from pipeline.inference import case_journal
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

predict = partial(command.predict, isolated=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return small_package(tmp_path_factory.mktemp("package") / "model", seeds=(0, 1))


def write_scan(path, shape=(34, 48, 30), seed=0, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([-1.0, 1.0, 1.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def test_a_segmentation_lies_on_its_scans_grid_with_both_header_forms(package, tmp_path):
    scan = write_scan(tmp_path / "in" / "a.nii.gz")
    image = nib.load(scan)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 4)
    nib.save(image, scan)
    (result,) = predict(package, scan, tmp_path / "out.nii.gz")
    found = nib.load(tmp_path / "out.nii.gz")
    assert result.status == "done"
    assert found.get_data_dtype() == np.uint8
    assert set(np.unique(found.dataobj)) <= {0, 1, 2}
    for form in ("qform", "sform"):
        assert int(found.header[f"{form}_code"]) == int(nib.load(scan).header[f"{form}_code"])
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.header["xyzt_units"] == image.header["xyzt_units"]


def test_one_bad_case_is_named_and_the_others_are_done(package, tmp_path):
    """A truncated file and NaN voxels are what nnU-Net segments without a word."""
    write_scan(tmp_path / "in" / "good.nii.gz")
    whole = write_scan(tmp_path / "in" / "cut.nii.gz").read_bytes()
    (tmp_path / "in" / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    image = nib.load(write_scan(tmp_path / "in" / "nan.nii.gz"))
    voxels = image.get_fdata(dtype=np.float32)
    voxels[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "in" / "nan.nii.gz")
    results = {r.id: r for r in predict(package, tmp_path / "in", tmp_path / "out")}
    assert {case: r.status for case, r in results.items()} == {"cut": "failed", "good": "done", "nan": "failed"}
    assert "NaN or infin" in results["nan"].message
    assert "cut.nii.gz" in results["cut"].message
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."] == ["good.nii.gz"]
    assert "failed" in results_table(list(results.values()))


def test_metaimage_stays_metaimage(package, tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).uniform(0, 100, (20, 32, 24)).astype(np.float32))
    image.SetSpacing((1.0, 1.2, 1.5))
    image.SetOrigin((3.0, -7.0, 11.0))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "a.mha"))
    predict(package, tmp_path / "in", tmp_path / "out")
    found = sitk.ReadImage(str(tmp_path / "out" / "a.mha"))
    assert found.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert (found.GetSize(), found.GetSpacing(), found.GetOrigin()) == (
        image.GetSize(),
        image.GetSpacing(),
        image.GetOrigin(),
    )


def test_an_interrupted_call_goes_on_where_it_was(package, tmp_path, monkeypatch):
    for case in "abc":
        write_scan(tmp_path / "in" / f"{case}.nii.gz")
    done, real = [], case_journal.CaseJournal.add

    def interrupted(journal, result):
        real(journal, result)
        done.append(result.id)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(case_journal.CaseJournal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(package, tmp_path / "in", tmp_path / "out")
    times = {case: (tmp_path / "out" / f"{case}.nii.gz").stat().st_mtime_ns for case in "ab"}
    results = predict(package, tmp_path / "in", tmp_path / "out")
    assert done == ["a", "b", "c"]
    assert [r.status for r in results] == ["done"] * 3
    assert times == {case: (tmp_path / "out" / f"{case}.nii.gz").stat().st_mtime_ns for case in "ab"}
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".segpipe-predict.json"]


KILLED_AFTER_TWO = """
import os, pathlib, signal, sys
from pipeline.inference.case_journal import CaseJournal
from pipeline.deploy.predict import predict
add, done = CaseJournal.add, []
def killing(journal, result):
    add(journal, result)
    done.append(result.id)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
CaseJournal.add = killing
predict(*map(pathlib.Path, sys.argv[1:]), device="cpu", isolated=False)
"""


@pytest.fixture
def noted(monkeypatch):
    """The cases that were segmented, in order."""
    cases, real = [], case_journal.CaseJournal.add
    monkeypatch.setattr(
        case_journal.CaseJournal, "add", lambda journal, result: (real(journal, result), cases.append(result.id))
    )
    return cases


@pytest.mark.slow
def test_killed_between_two_scans_only_what_is_left_or_new_is_computed(package, tmp_path, noted, repository):
    for case in "abc":
        write_scan(tmp_path / "in" / f"{case}.nii.gz", seed=ord(case))
    command = [sys.executable, "-c", KILLED_AFTER_TWO, package, tmp_path / "in", tmp_path / "out"]
    killed = subprocess.run(command, cwd=repository, check=False)
    assert killed.returncode == -signal.SIGKILL
    noted_cases = json.loads((tmp_path / "out" / ".segpipe-predict.json").read_text(encoding="utf-8"))["cases"]
    assert [entry["id"] for entry in noted_cases] == ["a", "b"]  # c may be written by now, but was not noted
    write_scan(tmp_path / "in" / "b0.nii.gz", seed=7)
    results = predict(package, tmp_path / "in", tmp_path / "out")
    assert noted == ["b0", "c"]
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("b", "done"), ("b0", "done"), ("c", "done")]
    uninterrupted = tmp_path / "whole"
    predict(package, tmp_path / "in", uninterrupted)
    for case in ("a", "b", "b0", "c"):
        one, other = (nib.load(folder / f"{case}.nii.gz") for folder in (tmp_path / "out", uninterrupted))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


@pytest.mark.slow
def test_a_scan_is_done_again_where_it_its_output_the_settings_or_the_package_changed(package, tmp_path, noted):
    source, output = tmp_path / "in", tmp_path / "out"
    for case in "abc":
        write_scan(source / f"{case}.nii.gz")

    def computed(model=package, **options):
        noted.clear()
        predict(model, source, output, **options)
        return "".join(noted)

    assert computed() == "abc"
    assert computed() == ""
    write_scan(source / "d.nii.gz")
    assert computed() == "d"
    write_scan(source / "b.nii.gz", seed=5)
    assert computed() == "b"
    (output / "c.nii.gz").unlink()
    assert computed() == "c"
    (source / "a.nii.gz").rename(tmp_path / "a.nii.gz")
    assert computed() == ""
    (tmp_path / "a.nii.gz").rename(source / "a.nii.gz")
    assert computed() == ""  # what was not asked for in between is still known
    assert computed(settings=PredictorConfig(overlap=0.25)) == "abcd"
    assert computed() == "abcd"
    other = small_package(tmp_path / "other", seeds=(2,))
    assert computed(other) == "abcd"


def test_a_scan_that_failed_is_tried_again(package, tmp_path, noted):
    whole = write_scan(tmp_path / "in" / "a.nii.gz")
    write_scan(tmp_path / "in" / "b.nii.gz")
    content = whole.read_bytes()
    whole.write_bytes(content[:1000])
    assert [r.status for r in predict(package, tmp_path / "in", tmp_path / "out")] == ["failed", "done"]
    predict(package, tmp_path / "in", tmp_path / "out")
    whole.write_bytes(content)
    assert [r.status for r in predict(package, tmp_path / "in", tmp_path / "out")] == ["done", "done"]
    assert sorted(noted) == ["a", "a", "a", "b"]


def test_strict_refuses_a_scan_unlike_the_training_data(package, tmp_path):
    scan = write_scan(tmp_path / "in" / "thick.nii.gz", (34, 48, 6), affine=np.diag([1.0, 1.0, 9.0, 1.0]))
    (lenient,) = predict(package, scan, tmp_path / "out")
    (strict,) = predict(package, scan, tmp_path / "out", strict=True)
    assert (lenient.status, strict.status) == ("done", "failed")
    assert "spacing" in lenient.message
    assert "unlike the training data" in strict.message


def test_an_output_file_of_no_image_kind_is_refused(package, tmp_path):
    scan = write_scan(tmp_path / "a.nii.gz")
    with pytest.raises(ConfigError, match=r"'\.png' is no kind of image"):
        predict(package, scan, tmp_path / "out.png", "cpu")
    assert not (tmp_path / "out.png").exists()


def test_several_scans_do_not_go_into_one_file(package, tmp_path):
    for case in "ab":
        write_scan(tmp_path / "in" / f"{case}.nii.gz")
    with pytest.raises(ConfigError, match=r"is one file, but there are 2 scans"):
        predict(package, tmp_path / "in", tmp_path / "out.nii.gz")


def test_a_scan_is_never_overwritten(package, tmp_path):
    scan = write_scan(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(ConfigError, match="would overwrite the scan"):
        predict(package, scan, tmp_path / "in")


@pytest.mark.parametrize("layout", ["flat", "folders", "manifest"])
def test_channels_come_as_files_folders_or_a_manifest(tmp_path, layout):
    for case in ("p1", "p2"):
        for number in range(2):
            folder = tmp_path / case if layout == "folders" else tmp_path
            write_scan(folder / f"{case}_{number:04d}.nii.gz", (4, 4, 4))
    source = tmp_path
    if layout == "manifest":
        source = tmp_path / "manifest.json"
        cases = [
            {"id": c, "images": [f"{c}_{n:04d}.nii.gz" for n in range(2)], "split": "testing"} for c in ("p1", "p2")
        ]
        channels = [{"name": "t1"}, {"name": "t2"}]
        content = {"format": "segpipe-manifest/1", "name": "x", "channels": channels, "labels": {}, "cases": cases}
        source.write_text(json.dumps(content))
    scans = list_scans(source, ["t1", "t2"])
    assert [scan.id for scan in scans] == ["p1", "p2"]
    assert [[path.name for path in scan.images] for scan in scans] == [
        [f"{case}_0000.nii.gz", f"{case}_0001.nii.gz"] for case in ("p1", "p2")
    ]
    assert not any(scan.fault for scan in scans)


def test_missing_channels_are_named_case_by_case(tmp_path):
    for name in ("p1_0000", "p1_0001", "p2_0001", "p3_0000", "p3_0001", "p3_0002"):
        write_scan(tmp_path / f"{name}.nii.gz", (4, 4, 4))
    faults = {scan.id: scan.fault for scan in list_scans(tmp_path, ["t1", "flair"])}
    assert faults == {
        "p1": "",
        "p2": "channel missing: t1 (…_0000)",
        "p3": "the model has no channel for p3_0002.nii.gz",
    }


def test_numbers_that_count_cases_are_no_channels(package, tmp_path):
    """Of one channel, as amos_0004 has it; 0 and 1 of one name are two channels of a case, and one too many."""
    cases = ("amos_0004", "amos_0007", "heart")
    for name in cases:
        write_scan(tmp_path / "in" / f"{name}.nii.gz")
    results = predict(package, tmp_path / "in", tmp_path / "out", uncertainty=True)
    assert [(result.id, result.status) for result in results] == [(case, "done") for case in cases]
    for folder in (tmp_path / "out", tmp_path / "out/uncertainty"):
        names = sorted(path.name for path in folder.glob("*.nii.gz"))
        assert names == [f"{case}.nii.gz" for case in cases]
    for number in range(2):
        write_scan(tmp_path / "both" / f"p1_{number:04d}.nii.gz", (4, 4, 4))
    (case,) = list_scans(tmp_path / "both", ["t1"])
    assert case.id == "p1" and len(case.images) == 2
    for number in range(6):
        write_scan(tmp_path / "many" / f"c_{number:04d}.nii.gz", (4, 4, 4))
    assert [scan.id for scan in list_scans(tmp_path / "many", ["t1"])] == [f"c_{number:04d}" for number in range(6)]


def test_one_channel_of_a_case_stands_for_the_case(tmp_path):
    for number in range(2):
        write_scan(tmp_path / f"p1_{number:04d}.nii.gz", (4, 4, 4))
    (scan,) = list_scans(tmp_path / "p1_0001.nii.gz", ["t1", "t2"])
    assert [path.name for path in scan.images] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]


def test_a_folder_and_a_file_of_one_name_are_refused_by_name(tmp_path):
    """As a converter leaves its result beside its source: nobody knows which is meant."""
    write_scan(tmp_path / "p1.nii.gz", (4, 4, 4))
    write_scan(tmp_path / "p1" / "T1.nii.gz", (4, 4, 4))
    write_scan(tmp_path / "p2.nii.gz", (4, 4, 4))
    scans = list_scans(tmp_path, ["t1"])
    assert [bool(scan.fault) for scan in scans] == [True, True, False] and len({scan.id for scan in scans}) == 3
    assert "one case's by their names" in scans[0].fault


def test_segmentations_beside_their_scans_are_no_scans(package, tmp_path, segpipe_data):
    shutil.copytree(segpipe_data / "hippocampus_dicom" / "11", tmp_path / "p1")
    for _ in range(2):
        (result,) = predict(package, tmp_path, tmp_path, isolated=False)
        assert (result.id, result.status) == ("p1", "done")
    assert [scan.images for scan in list_scans(tmp_path, ["t1"])] == [(tmp_path / "p1",)]


def test_series_below_folders_of_patients_and_studies_are_found(tmp_path, segpipe_data):
    for place in ("A/first/ct", "A/second/ct", "B"):
        shutil.copytree(segpipe_data / "hippocampus_dicom" / "11", tmp_path / place)
    scans = list_scans(tmp_path, ["t1"])
    assert [scan.id for scan in scans] == ["B", "series_001", "series_002"]
    assert sorted(scan.images[0].relative_to(tmp_path).as_posix() for scan in scans) == [
        "A/first/ct",
        "A/second/ct",
        "B",
    ]


def test_what_an_earlier_scan_of_a_name_left_does_not_stand_for_a_damaged_one(package, tmp_path):
    write_scan(tmp_path / "in" / "p1.nii.gz")
    assert predict(package, tmp_path / "in", tmp_path / "out")[0].status == "done"
    whole = (tmp_path / "in" / "p1.nii.gz").read_bytes()
    (tmp_path / "in" / "p1.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert predict(package, tmp_path / "in", tmp_path / "out")[0].status == "failed"
    assert not (tmp_path / "out" / "p1.nii.gz").exists()


def test_two_files_of_one_name_are_refused_by_name(tmp_path):
    write_scan(tmp_path / "a.nii.gz", (4, 4, 4))
    (tmp_path / "a.nii").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    scans = list_scans(tmp_path, ["t1"])
    assert [scan.id for scan in scans] == ["a.nii", "a.nii.gz"]
    assert all("a.nii, a.nii.gz are one case's by their names" in scan.fault for scan in scans)


def test_nothing_to_segment_is_said(package, tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        predict(package, tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="no image in it"):
        predict(package, tmp_path, tmp_path / "out")


def test_volumes_are_those_of_each_scans_own_file(package, tmp_path):
    """A folder's segmentation is called as its file, not as its case; two kinds of one name are two cases."""
    write_scan(tmp_path / "in" / "p1" / "t1.nii.gz")
    write_scan(tmp_path / "in" / "p2.nii.gz", seed=1)
    results = predict(package, tmp_path / "in", tmp_path / "out")
    write_results(tmp_path / "out", results, load_package(package))
    cases = json.loads((tmp_path / "out/volumes.json").read_text())["cases"]
    assert {case["case"]: case["segmentation"] for case in cases} == {"p1": "t1.nii.gz", "p2": "p2.nii.gz"}
    for case in cases:
        segmentation = nib.load(tmp_path / "out" / case["segmentation"])
        voxels = np.count_nonzero(np.asarray(segmentation.dataobj))
        voxel_ml = float(np.prod(segmentation.header.get_zooms())) / 1000
        assert sum(case["volumes_ml"].values()) == pytest.approx(voxels * voxel_ml, rel=1e-5)


@contextmanager
def as_nobody():
    """Without the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folders_that_cannot_be_read_are_faults_without_their_names():
    """Who a folder is named after cannot be known then; and neither a name nor a UID of a file gets into a message."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in"
        write_scan(source / "a.nii.gz")
        (source / "DOE^JOHN").mkdir()
        locked = [source / "DOE^JOHN", Path(place) / "loose" / "1.2.840.113619.dcm"]
        locked[1].parent.mkdir()
        locked[1].write_bytes(bytes(128) + b"DICM")
        Path(place).chmod(0o755)
        for path in locked:
            path.chmod(0)
        with as_nobody():
            scans = list_scans(source, ["t1"])
            with pytest.raises(DataError, match=r"loose: its files cannot be read \(Permission denied\)"):
                list_scans(locked[1].parent, ["t1"])
    assert [(scan.id, bool(scan.fault)) for scan in scans] == [("a", False), ("unreadable_001", True)]
    assert "DOE" not in scans[1].fault
