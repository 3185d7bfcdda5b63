"""The container's entry point: where it reads and writes, and what it says before any work where that cannot be."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import EXIT_DATA, EXIT_DONE, EXIT_OUR_FAULT, EXIT_SOME_CASES
from pipeline.dataset.manifest import FORMAT
from pipeline.deploy import container_entrypoint
from pipeline.deploy.container_paths import ContainerPaths, container_paths
from pipeline.deploy.grand_challenge_sockets import grand_challenge_sockets, scans_in_sockets
from pipeline.deploy.predict_in_container import predict_all
from pipeline.deploy.result_tables import structure_volumes_ml
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.packaging.label_metadata import make_labels
from tests.packaging.small_package import small_package


def test_the_places_of_plain_docker_run_are_the_default() -> None:
    assert container_paths({}) == ContainerPaths(Path("/input"), Path("/output"), Path("/opt/ml/model"))


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("HOLOSCAN_INPUT_PATH", "input"),
        ("HOLOSCAN_OUTPUT_PATH", "output"),
        ("HOLOSCAN_MODEL_PATH", "model"),
        ("MONAI_INPUTPATH", "input"),
        ("MONAI_OUTPUTPATH", "output"),
        ("MONAI_MODELPATH", "model"),
    ],
)
def test_monai_deploy_says_where_to_read_and_write(variable: str, place: str) -> None:
    """Where it names a folder to work in, other places may be relative to it."""
    standard = container_paths({})
    assert container_paths({variable: "/var/deploy"}) == replace(standard, **{place: Path("/var/deploy")})
    relative = container_paths({variable: "deploy", "HOLOSCAN_WORKDIR": "/var/holoscan"})
    assert relative == replace(standard, **{place: Path("/var/holoscan/deploy")})


def test_a_model_one_folder_down_is_found_as_monai_deploy_mounts_it(tmp_path: Path) -> None:
    (tmp_path / "hippocampus").mkdir()
    (tmp_path / "hippocampus" / "package.json").write_text("{}")
    assert container_paths({"HOLOSCAN_MODEL_PATH": str(tmp_path)}).model == tmp_path / "hippocampus"


def test_plain_folders_are_not_taken_for_grand_challenge(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    assert grand_challenge_sockets(tmp_path) == []


def two_channels(folder: Path) -> Path:
    """A model of two channels."""
    channel = {"modality": "MR", "scheme": "zscore"}
    return small_package(folder, planned={"channels": [{"name": "T1", **channel}, {"name": "T2", **channel}]})


def scan(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).uniform(0, 200, (36, 40, 36)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


@pytest.mark.slow
def test_several_channels_of_a_case_become_one_segmentation_and_a_missing_one_is_named(tmp_path: Path) -> None:
    places = ContainerPaths(tmp_path / "in", tmp_path / "out", two_channels(tmp_path / "model"))
    places.output.mkdir()
    for seed, name in enumerate(("a_0000", "a_0001", "b/T1_0000", "b/T2_0001", "c_0000")):
        scan(places.input / f"{name}.nii.gz", seed)
    assert predict_all(places, "cpu", strict=False) == EXIT_SOME_CASES
    rows = {row["case"]: row for row in csv.DictReader((places.output / "cases.csv").open(encoding="utf-8"))}
    assert {name: row["status"] for name, row in rows.items()} == {"a": "done", "b": "done", "c": "failed"}
    assert "T2" in rows["c"]["message"]
    assert sorted(path.name for path in places.output.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    # The other order of the channels is another scan: both have been looked at, each in its place.
    swapped = ContainerPaths(tmp_path / "swapped", tmp_path / "out_swapped", places.model)
    swapped.output.mkdir()
    for seed, name in enumerate(("a_0001", "a_0000")):
        scan(swapped.input / f"{name}.nii.gz", seed)
    assert predict_all(swapped, "cpu", strict=False) == EXIT_DONE
    labels = [np.asarray(nib.load(each.output / "a.nii.gz").dataobj) for each in (places, swapped)]
    assert not np.array_equal(*labels)


@pytest.mark.slow
def test_a_4d_file_holds_all_channels_and_a_manifest_names_the_cases(tmp_path: Path) -> None:
    """Both, as separate files do, give the labels that the same channels gave."""
    model = two_channels(tmp_path / "model")
    for seed, name in enumerate(("apart/a_0000", "apart/a_0001", "listed/files/one", "listed/files/two")):
        scan(tmp_path / f"{name}.nii.gz", seed % 2)
    both = np.stack([np.asarray(nib.load(tmp_path / f"apart/a_000{i}.nii.gz").dataobj) for i in (0, 1)], axis=-1)
    (tmp_path / "together").mkdir()
    nib.save(nib.Nifti1Image(both, np.eye(4)), tmp_path / "together" / "a.nii.gz")
    case = {"id": "a", "images": ["files/one.nii.gz", "files/two.nii.gz"], "split": "testing"}
    channels = [{"name": name, "modality": "MR"} for name in ("T1", "T2")]
    content = {"format": FORMAT, "name": "x", "licence": "", "channels": channels, "labels": {"a": 1}, "cases": [case]}
    (tmp_path / "listed" / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "apart" / "manifest.json").write_text('{"of": "something else"}')
    found = {}
    for name in ("apart", "together", "listed"):
        output = tmp_path / "out" / name
        output.mkdir(parents=True)
        assert (
            predict_all(ContainerPaths(tmp_path / name, output, model), "cpu", strict=False, uncertainty=True)
            == EXIT_DONE
        )
        found[name] = np.asarray(nib.load(output / "a.nii.gz").dataobj)
        (row,) = csv.DictReader((output / "cases.csv").open(encoding="utf-8"))
        (entry,) = json.loads((output / "volumes.json").read_text(encoding="utf-8"))["cases"]
        assert float(row["uncertainty"]) == pytest.approx(entry["uncertainty"], abs=1e-6) and entry["uncertainty"] > 0
        assert (output / "uncertainty" / "a.nii.gz").is_file()
    np.testing.assert_array_equal(found["apart"], found["together"])
    np.testing.assert_array_equal(found["apart"], found["listed"])


def test_grand_challenge_writes_to_the_slug_that_is_asked_for_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_INPUT", str(tmp_path / "in"))
    monkeypatch.setenv("SEGPIPE_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("SEGPIPE_MODEL", str(small_package(tmp_path / "model")))
    monkeypatch.setenv("SEGPIPE_OUTPUT_SLUG", "brain-structures")
    monkeypatch.setattr("pipeline.deploy.predict.segment_in_subprocess", lambda *_: pytest.fail("another process"))
    (tmp_path / "out").mkdir()
    scan(tmp_path / "in" / "images" / "brain-mri" / "x.nii.gz", 0)
    assert container_entrypoint.main([]) == EXIT_DONE
    assert [path.name for path in (tmp_path / "out" / "images" / "brain-structures").glob("*.nii.gz")] == ["x.nii.gz"]


@pytest.mark.slow
def test_grand_challenges_sockets_of_one_channel_each_are_one_case(tmp_path: Path) -> None:
    """T1 and T2 lie in two sockets under names that say nothing, as on grand-challenge; order of the folders or not."""
    places = ContainerPaths(tmp_path / "in", tmp_path / "out", two_channels(tmp_path / "model"))
    plain = replace(places, input=tmp_path / "plain", output=tmp_path / "plain_out")
    for each in (places, plain):
        each.output.mkdir()
    scan(places.input / "images" / "axial-t2-mri" / "8c1d.nii.gz", 1)
    scan(places.input / "images" / "coronal-t1-mri" / "f03a.nii.gz", 0)
    assert predict_all(places, "cpu", strict=False, slug="brain") == EXIT_DONE
    scan(plain.input / "f03a_0000.nii.gz", 0)
    scan(plain.input / "f03a_0001.nii.gz", 1)
    assert predict_all(plain, "cpu", strict=False) == EXIT_DONE
    found, expected = places.output / "images" / "brain" / "f03a.nii.gz", plain.output / "f03a.nii.gz"
    np.testing.assert_array_equal(*(np.asarray(nib.load(path).dataobj) for path in (found, expected)))
    assert np.unique(np.asarray(nib.load(found).dataobj)).size > 1
    assert len(list(found.parent.glob("*.nii.gz"))) == 1


def test_sockets_that_fit_no_channel_are_a_fault_that_names_both(tmp_path: Path) -> None:
    for socket in ("flair-mri", "t1-mri"):
        scan(tmp_path / socket / "x.nii.gz", 0)
    (case,) = scans_in_sockets([tmp_path / "flair-mri", tmp_path / "t1-mri"], ["T1", "T2"])
    assert "one socket whose name holds its name; found T1: t1-mri; T2: none" in case.fault
    (case,) = scans_in_sockets([tmp_path / "flair-mri", tmp_path / "t1-mri"], ["mri", "T1"])
    assert "mri: flair-mri, t1-mri" in case.fault


def test_a_model_of_one_channel_takes_the_socket_that_is_called_as_it(tmp_path: Path) -> None:
    for socket in ("pelvis-t1-mri", "prostate-mask"):
        scan(tmp_path / socket / f"{socket}.nii.gz", 0)
    (case,) = scans_in_sockets([tmp_path / "pelvis-t1-mri", tmp_path / "prostate-mask"], ["T1"])
    assert case.images[0].parent.name == "pelvis-t1-mri"
    assert len(scans_in_sockets([tmp_path / "pelvis-t1-mri", tmp_path / "prostate-mask"], ["CT"])) == 2
    scan(tmp_path / "prediction" / "p.nii.gz", 0)  # whose name holds the letters of CT
    assert len(scans_in_sockets([tmp_path / "pelvis-t1-mri", tmp_path / "prediction"], ["CT"])) == 2


def test_a_channel_whose_name_is_in_anothers_finds_its_own_socket(tmp_path: Path) -> None:
    for socket in ("brain-t1c", "brain-t1"):
        scan(tmp_path / socket / "x.nii.gz", 0)
    (case,) = scans_in_sockets([tmp_path / "brain-t1", tmp_path / "brain-t1c"], ["T1", "T1C"])
    assert [image.parent.name for image in case.images] == ["brain-t1", "brain-t1c"] and not case.fault


def test_cases_of_one_name_in_two_sockets_are_kept_apart(tmp_path: Path) -> None:
    for socket, name in (("a", "x"), ("a", "y"), ("b", "x")):
        scan(tmp_path / socket / f"{name}.nii.gz", 0)
    scans = scans_in_sockets([tmp_path / "a", tmp_path / "b"], ["T1"])
    assert {scan.id: scan.images[0].parent.name for scan in scans} == {"a_x": "a", "b_x": "b", "y": "a"}


def test_a_missing_input_is_said_with_the_mount_that_cures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPIPE_INPUT", str(tmp_path / "none"))
    assert container_entrypoint.main([]) == EXIT_DATA
    assert ":/input:ro" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written_is_said_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    monkeypatch.setenv("SEGPIPE_INPUT", str(tmp_path))
    monkeypatch.setenv("SEGPIPE_OUTPUT", str(tmp_path / "out"))
    assert container_entrypoint.main([]) == EXIT_DATA
    assert "--user $(id -u):$(id -g)" in capsys.readouterr().err


def test_a_batch_container_is_healthy_and_a_service_that_does_not_answer_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_entrypoint, "SERVING", tmp_path / "port")
    assert container_entrypoint.main(["health"]) == EXIT_DONE
    (tmp_path / "port").write_text("9")  # discard: nothing listens
    assert container_entrypoint.main(["health"]) == EXIT_OUR_FAULT


def test_version_lists_what_was_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "BUILD.info").write_text("segpipe: 1\npackage: numpy==2\n")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        container_entrypoint.main(["--version"])
    assert ended.value.code == EXIT_DONE
    assert capsys.readouterr().out == "segpipe: 1\npackage: numpy==2\n"


def test_volumes_are_voxels_times_their_size_whatever_the_orientation() -> None:
    """3 voxels of 1 × 2 × 5 mm are 30 mm³ = 0.03 ml; the affine mirrors x and permutes y and z."""
    array = np.zeros((4, 4, 4), np.uint8)
    array[0, 0, :3] = 1
    array[2, 2, 2] = 5
    affine = np.array([[-1.0, 0, 0, 7], [0, 0, 5.0, -3], [0, 2.0, 0, 1], [0, 0, 0, 1]])
    labels = make_labels({"liver": (1,), "whole": (1, 5), "absent": (9,)}, {})
    volumes = structure_volumes_ml(Volume(array, Grid((4, 4, 4), affine)), labels)
    assert volumes == pytest.approx({"liver": 0.03, "whole": 0.04, "absent": 0.0})
