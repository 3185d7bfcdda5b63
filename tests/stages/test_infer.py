"""Stage `infer`: who is segmented by which networks, what is written, how it survives."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.base.files import read_json, write_json
from pipeline.base.runtime import Runtime
from pipeline.data.cases import Case, Cases, Channel
from pipeline.data.plan import ChannelPlan, Plan, write_plan
from pipeline.inference import jobs
from pipeline.models.checkpoint import save_weights
from pipeline.models.networks import build_network
from pipeline.stages.infer import InferConfig, InferReads, list_jobs, run

NETWORK = {"name": "unet", "channels": [4, 8, 16], "deep_supervision": 1}


@pytest.fixture
def inputs(tmp_path):
    """Five cases: two validated in fold 0, two in fold 1, one for testing; folds 0 and 1 are trained."""
    folders = {name: tmp_path / name for name in ("load", "plan", "sample", "train")}
    for folder in folders.values():
        folder.mkdir()
    cases = []
    for i in range(5):
        path = tmp_path / "data" / f"scan_{i}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        voxels = np.random.default_rng(i).uniform(0, 100, (18, 20, 22)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, -1.0, 1.0, 1.0])), path)
        split = "testing" if i == 4 else "training"
        cases.append(
            Case(
                id=f"scan_{i}",
                subject=str(i),
                images=(path.name,),
                label=None,
                split=split,
                shape=(18, 20, 22),
                spacing_mm=(1, 1, 1),
                orientation="RPS",
                affine=(),
                sha256={},
            )
        )
    structures = {"low": (1,), "high": (3,)}
    channel = Channel(name="t1")
    write_json(
        folders["load"] / "cases.json",
        Cases(dataset="d", channels=(channel,), structures=structures, cases=tuple(cases)).model_dump(mode="json"),
    )
    write_json(folders["load"] / "location.json", {"root": str(tmp_path / "data")})
    write_json(
        folders["sample"] / "folds.json",
        {"folds": [{"train": [], "val": ["scan_0", "scan_1"]}, {"train": [], "val": ["scan_2", "scan_3"]}]},
    )
    plan = Plan(
        spacing_mm=(1, 1, 1),
        channels=(ChannelPlan(name="t1", modality="MR", scheme="zscore"),),
        structures=structures,
        patch_size=(16, 16, 16),
        batch_size=1,
        network=NETWORK,
        max_steps=1,
        precision="fp32",
        device="cpu",
    )
    write_plan(folders["plan"], plan)
    write_json(folders["train"] / "train.json", {"folds": [0, 1]})
    for fold in (0, 1):
        torch.manual_seed(fold)
        weights = build_network(NETWORK, 1, 3).state_dict()
        (folders["train"] / f"fold_{fold}").mkdir()
        save_weights(folders["train"] / f"fold_{fold}" / "last.safetensors", weights)
    return folders


def started(tmp_path):
    out = tmp_path / "infer.partial"
    out.mkdir(exist_ok=True)
    return out


def test_validation_cases_go_to_the_fold_that_did_not_see_them_and_testing_cases_to_all(inputs, tmp_path):
    out = started(tmp_path)
    outcome = run(InferReads(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    assert outcome.failed_cases == ()
    entries = {entry["id"]: entry for entry in read_json(out / "cases.json")["cases"]}
    assert {case: entry["folds"] for case, entry in entries.items()} == {
        "scan_0": [0],
        "scan_1": [0],
        "scan_2": [1],
        "scan_3": [1],
        "scan_4": [0, 1],
    }
    for case, entry in entries.items():
        found, scan = nib.load(out / entry["prediction"]), nib.load(tmp_path / "data" / f"{case}.nii.gz")
        assert entry["prediction"] == f"predictions/{case}.nii.gz"
        np.testing.assert_array_equal(found.affine, scan.affine)
        assert found.get_data_dtype() == np.uint8
        assert set(np.unique(found.dataobj)) <= {0, 1, 3}
    with (out / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["fold"] for row in rows] == ["0", "0", "1", "1", "0+1"]
    assert all(float(row["seconds"]) > 0 and float(row["peak_memory_gib"]) > 0 for row in rows)
    assert not (out / "journal.json").exists()


def test_a_case_that_fails_is_named_and_the_others_go_on(inputs, tmp_path):
    (tmp_path / "data" / "scan_2.nii.gz").write_bytes(b"not an image")
    out = started(tmp_path)
    outcome = run(InferReads(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    assert outcome.failed_cases == ("scan_2",)
    entries = {entry["id"]: entry for entry in read_json(out / "cases.json")["cases"]}
    assert entries["scan_2"]["prediction"] is None
    assert "scan_2.nii.gz" in entries["scan_2"]["message"]
    assert len(list((out / "predictions").iterdir())) == 4


def test_an_interrupted_stage_goes_on_case_by_case(inputs, tmp_path, monkeypatch):
    out, real, done = started(tmp_path), jobs.Journal.add, []

    def interrupted(journal, result):
        real(journal, result)
        done.append(result.id)
        if len(done) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(InferReads(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    (out / "predictions" / "scan_1.nii.gz").unlink()
    run(InferReads(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    assert done == ["scan_0", "scan_1", "scan_2", "scan_1", "scan_3", "scan_4"]


def test_a_model_of_all_cases_has_no_validation_cases(inputs, tmp_path):
    jobs = list_jobs(InferConfig(), inputs, tmp_path, ["full"])
    assert [(job.id, job.model) for job in jobs] == [("scan_4", "ensemble")]
    jobs = list_jobs(InferConfig(cases=("validation",)), inputs, tmp_path, ["1"])
    assert [(job.id, job.model) for job in jobs] == [("scan_2", "1"), ("scan_3", "1")]
