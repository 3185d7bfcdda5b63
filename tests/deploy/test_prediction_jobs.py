"""Where each mask of a prediction goes, and that no scan is written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.deploy.group_scan_files import Scan
from pipeline.deploy.prediction_jobs import prediction_jobs


def scan(path: Path, fault: str = "") -> Scan:
    """A scan of one existing file, named after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    return Scan(path.name.split(".")[0], (path,), fault)


def test_each_mask_has_the_name_of_its_scan(tmp_path: Path) -> None:
    scans = [scan(tmp_path / "in/a.nii.gz"), scan(tmp_path / "in/b.mha")]
    jobs, faults = prediction_jobs(scans, is_file=False, output=tmp_path / "out", texts=False)
    assert [job.output for job in jobs] == [tmp_path / "out/a.nii.gz", tmp_path / "out/b.mha"]
    assert not faults
    assert not any(job.texts for job in jobs)


def test_a_faulty_scan_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    scans = [scan(tmp_path / "in/a.nii.gz"), scan(tmp_path / "in/b.nii.gz", "has no second channel")]
    jobs, faults = prediction_jobs(scans, is_file=False, output=tmp_path / "out", texts=True)
    assert [job.id for job in jobs] == ["a"]
    assert [(fault.id, fault.status, fault.message) for fault in faults] == [("b", "failed", "has no second channel")]


def test_one_scan_may_go_to_one_file(tmp_path: Path) -> None:
    jobs, _ = prediction_jobs([scan(tmp_path / "a.nii.gz")], is_file=True, output=tmp_path / "mask.nrrd", texts=True)
    assert [job.output for job in jobs] == [tmp_path / "mask.nrrd"]


def test_several_scans_cannot_go_to_one_file(tmp_path: Path) -> None:
    scans = [scan(tmp_path / "in/a.nii.gz"), scan(tmp_path / "in/b.nii.gz")]
    with pytest.raises(ConfigError, match=r"is one file, but there are 2 scans; give a folder"):
        prediction_jobs(scans, is_file=False, output=tmp_path / "mask.nii.gz", texts=True)


def test_an_output_that_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\.png' is no kind of image; end it in \.nii\.gz, \.mha or \.nrrd"):
        prediction_jobs([scan(tmp_path / "a.nii.gz")], is_file=True, output=tmp_path / "mask.png", texts=True)


@pytest.mark.parametrize("link", [False, True])
def test_the_scan_itself_is_never_written_over(tmp_path: Path, link: bool) -> None:
    original = scan(tmp_path / "in/a.nii.gz")
    output = tmp_path / "in"
    if link:
        output = tmp_path / "linked"
        output.symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match="would overwrite the scan"):
        prediction_jobs([original], is_file=False, output=output, texts=True)
