"""Stage load: its files, what stops it, what it leaves out, and that a moved data set is the same data set."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.execute_stage import execute
from pipeline.base.machine import Runtime
from pipeline.base.stage_outputs import failed_cases, output_digest
from pipeline.config.data import DataConfig
from pipeline.config.load import LoadConfig
from pipeline.dataset.folds import make_folds
from pipeline.dataset.loaded_cases import read_cases, recorded_data_root, require_recorded_root
from pipeline.dataset.manifest import Manifest, write_manifest
from pipeline.stages.input_files import changed_data_files
from pipeline.stages.stage_configs import LoadStageConfig
from pipeline.stages.stage_table import LOAD
from tests.dataset.small_datasets import dataset, label, save, scan, with_case

SERIAL = Runtime(executor="serial")


def load(root: Path, out: Path, manifest: Manifest, **settings: object) -> Path:
    write_manifest(root / "manifest.json", manifest)
    config = LoadStageConfig(data=DataConfig(manifest=root / "manifest.json"), load=LoadConfig(**settings))
    execute(LOAD, config, {}, out, SERIAL)
    return out


def test_cases_hold_what_was_measured(tmp_path: Path) -> None:
    out = load(tmp_path / "data", tmp_path / "load", dataset(tmp_path / "data"))
    cases = read_cases(out)
    first = cases.cases[0]
    assert (first.id, first.subject, first.orientation) == ("c0", "c0", "RAS")
    values = scan(0)
    occupied = np.argwhere(values > values.min())
    assert first.nonzero_shape == tuple(np.ptp(occupied, axis=0) + 1)
    assert (first.shape, first.spacing_mm) == ((14, 12, 10), (1.0, 1.0, 2.0))
    assert first.label_voxels == {"head": 37, "tail": 24}
    assert first.label_components == {"head": 2, "tail": 1}
    assert first.intensity[0]["mean"] == pytest.approx(scan(0).mean(), rel=1e-6)
    assert first.intensity[0]["foreground_p50"] == pytest.approx(np.median(scan(0)[np.r_[label()] > 0]), abs=3)
    assert set(first.sha256) == {"images/c0.nii.gz", "labels/c0.nii.gz"} == set(first.voxel_digest)
    assert recorded_data_root(out) == (tmp_path / "data").resolve()
    assert json.loads((out / "faults.json").read_text(encoding="utf-8")) == []
    assert json.loads((out / "fingerprint.json").read_text(encoding="utf-8"))["n_cases"] == 6


def test_a_faulty_training_case_stops_before_anything_is_computed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manifest = dataset(tmp_path / "data")
    (tmp_path / "data/images/c2.nii.gz").write_bytes(b"")
    save(tmp_path / "data/labels/c4.nii.gz", label()[:, :, :9])
    with pytest.raises(DataError, match=r"2 of 6 training cases have fatal faults .* c2, c4; repair them, or go on"):
        load(tmp_path / "data", tmp_path / "load", manifest)
    assert not (tmp_path / "load").exists()
    faults = json.loads((tmp_path / "load.partial/faults.json").read_text(encoding="utf-8"))
    assert [(fault["case"], fault["code"]) for fault in faults] == [("c2", "empty-file"), ("c4", "label-grid")]
    assert not (tmp_path / "load.partial/cases.json").exists()
    assert "c2  images/c2.nii.gz: the file is empty; copy or download it again" in caplog.text
    assert "checked 6 cases: 2 fatal, 0 fixable, 0 warning" in caplog.text


def test_excluded_cases_are_left_out_and_named(tmp_path: Path) -> None:
    manifest = dataset(tmp_path / "data")
    (tmp_path / "data/images/c2.nii.gz").write_bytes(b"")
    out = load(tmp_path / "data", tmp_path / "load", manifest, on_fault="exclude")
    assert [case.id for case in read_cases(out).cases] == ["c0", "c1", "c3", "c4", "c5"]
    assert failed_cases(out) == ["c2"]


def test_a_fold_whose_cases_are_left_out_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of folds 0, 1, 2 with two cases each, both of fold 1 are faulty: fold 2 becomes 1."""
    manifest = dataset(tmp_path / "data")
    for i in range(6):
        manifest = with_case(manifest, i, fold=i // 2)
    for i in (2, 3):
        (tmp_path / f"data/images/c{i}.nii.gz").write_bytes(b"")
    out = load(tmp_path / "data", tmp_path / "load", manifest, on_fault="exclude")
    assert "fold 1 of the manifest is dropped, since all of its cases are left out: c2, c3" in caplog.text
    assert "the other folds are counted anew: 0 is now 0, 2 is now 1" in caplog.text
    folds = make_folds(read_cases(out).training(), 5)["folds"]
    assert [fold["val"] for fold in folds] == [["c0", "c1"], ["c4", "c5"]]


def test_a_faulty_testing_case_does_not_stop_training(tmp_path: Path) -> None:
    manifest = with_case(dataset(tmp_path / "data"), 2, split="testing")
    (tmp_path / "data/images/c2.nii.gz").write_bytes(b"")
    out = load(tmp_path / "data", tmp_path / "load", manifest)
    assert failed_cases(out) == ["c2"]
    assert len(read_cases(out).training()) == 5


def test_no_sound_case_is_an_error(tmp_path: Path) -> None:
    manifest = dataset(tmp_path / "data", cases=1)
    (tmp_path / "data/images/c0.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="no sound training case is left"):
        load(tmp_path / "data", tmp_path / "load", manifest, on_fault="exclude")


def test_data_without_a_training_case_has_its_own_sentence(tmp_path: Path) -> None:
    manifest = with_case(dataset(tmp_path / "data", cases=1), 0, split="testing")
    with pytest.raises(DataError, match=r"has no training case; give cases a label map and the split training"):
        load(tmp_path / "data", tmp_path / "load", manifest)


def test_a_dicom_folder_that_cannot_be_read_does_not_end_the_others(tmp_path: Path) -> None:
    manifest = with_case(dataset(tmp_path / "data"), 2, images=["series"])
    (tmp_path / "data/series").mkdir()
    (tmp_path / "data/series/1.dcm").symlink_to("/proc/self/mem")
    out = load(tmp_path / "data", tmp_path / "load", manifest, on_fault="exclude")
    assert failed_cases(out) == ["c2"]


def test_a_moved_data_set_has_the_same_result(tmp_path: Path) -> None:
    first = load(tmp_path / "data", tmp_path / "a", dataset(tmp_path / "data"))
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    config = LoadStageConfig(
        data=DataConfig(manifest=tmp_path / "data/manifest.json", root=tmp_path / "moved"), load=LoadConfig()
    )
    execute(LOAD, config, {}, tmp_path / "b", SERIAL)
    assert output_digest(first) == output_digest(tmp_path / "b")
    assert recorded_data_root(tmp_path / "b") == (tmp_path / "moved").resolve()


def test_a_replaced_scan_is_noticed(tmp_path: Path) -> None:
    manifest = dataset(tmp_path / "data")
    out = load(tmp_path / "data", tmp_path / "load", manifest)
    config = LoadStageConfig(data=DataConfig(manifest=tmp_path / "data/manifest.json"), load=LoadConfig())
    assert not execute(LOAD, config, {}, out, SERIAL)
    save(tmp_path / "data/images/c1.nii.gz", scan(77))
    assert execute(LOAD, config, {}, out, SERIAL)


def test_what_a_finished_load_no_longer_answers_is_named(tmp_path: Path) -> None:
    manifest = dataset(tmp_path / "data")
    out = load(tmp_path / "data", tmp_path / "load", manifest)
    path = tmp_path / "data/manifest.json"
    config = LoadStageConfig(data=DataConfig(manifest=path), load=LoadConfig())
    assert changed_data_files(config, out) == []
    tolerant = LoadStageConfig(data=config.data, load=LoadConfig(grid_tolerance_mm=0.5))
    assert changed_data_files(tolerant, out) == ["load.grid_tolerance_mm"]
    save(tmp_path / "data/images/c1.nii.gz", scan(77))
    (tmp_path / "data/labels/c4.nii.gz").touch()  # another date, and nothing else
    assert changed_data_files(config, out) == ["images/c1.nii.gz"]
    write_manifest(path, with_case(manifest, 2, split="testing"))
    assert changed_data_files(config, out) == [f"the manifest {path}"]


def test_data_that_has_moved_or_is_not_there_has_not_changed(tmp_path: Path) -> None:
    out = load(tmp_path / "data", tmp_path / "load", dataset(tmp_path / "data"))
    shutil.copytree(tmp_path / "data", tmp_path / "moved", copy_function=shutil.copyfile)
    moved = LoadStageConfig(data=DataConfig(manifest=tmp_path / "moved/manifest.json"), load=LoadConfig())
    assert changed_data_files(moved, out) == []
    (tmp_path / "moved/images/c0.nii.gz").unlink()
    assert changed_data_files(moved, out) == []
    shutil.rmtree(tmp_path / "moved")
    assert changed_data_files(moved, out) == []


def test_where_the_data_has_moved_is_asked_of_load_alone(tmp_path: Path) -> None:
    """A later stage that is told `data.root` reads from where the data was loaded, and says who can change that."""
    out = load(tmp_path / "data", tmp_path / "load", dataset(tmp_path / "data"))
    assert require_recorded_root(out) == (tmp_path / "data").resolve()
    (tmp_path / "data").rename(tmp_path / "moved")
    assert recorded_data_root(out) == tmp_path / "data"
    with pytest.raises(
        DataError, match=r"it is gone; where they have moved, `segpipe load CONFIG --set data\.root=DIR`"
    ):
        require_recorded_root(out)


def test_a_missing_root_names_the_key(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    with pytest.raises(
        ConfigError, match=r"data\.root: there is no folder .*; give the folder of the scans with --set"
    ):
        write_manifest(tmp_path / "manifest.json", dataset(tmp_path / "data"))
        config = LoadStageConfig(
            data=DataConfig(manifest=tmp_path / "manifest.json", root=tmp_path / "nowhere"), load=LoadConfig()
        )
        execute(LOAD, config, {}, tmp_path / "load", SERIAL)
