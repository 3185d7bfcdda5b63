"""Stage `infer`: who is segmented by which networks, what is written, how it survives."""

from __future__ import annotations

import csv
import shutil

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
import torch

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json, write_json
from pipeline.base.machine import Runtime
from pipeline.config.infer import InferConfig
from pipeline.config.package import PackageConfig
from pipeline.dataset.loaded_cases import Case, Cases, Channel
from pipeline.deploy.predict import predict
from pipeline.inference import case_journal
from pipeline.inference.predictor_config import PostprocessConfig
from pipeline.io import write_label as label_writing
from pipeline.models.checkpoint import save_weights
from pipeline.models.networks.build_network import build_network
from pipeline.models.networks.network_config import size_divisor
from pipeline.packaging.model_package import load_package
from pipeline.preprocessing.plan import ChannelPlan, Plan, read_plan, write_plan
from pipeline.stages import package
from pipeline.stages.infer import list_jobs, run
from pipeline.stages.stage_configs import InferStageConfig, PackageStageConfig
from pipeline.stages.stage_table import PACKAGE
from tests.packaging.finished_stages import finished_stages

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
    outcome = run(InferStageConfig(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
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
    with (out / "cases.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["fold"] for row in rows] == ["0", "0", "1", "1", "0+1"]
    assert {row["backend"] for row in rows} == {"torch, cpu, fp32"}
    assert all(float(row["seconds"]) > 0 and float(row["peak_memory_gib"]) > 0 for row in rows)
    assert not (out / "journal.json").exists()


def test_a_case_that_fails_is_named_and_the_others_go_on(inputs, tmp_path):
    (tmp_path / "data" / "scan_2.nii.gz").write_bytes(b"not an image")
    out = started(tmp_path)
    outcome = run(InferStageConfig(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    assert outcome.failed_cases == ("scan_2",)
    entries = {entry["id"]: entry for entry in read_json(out / "cases.json")["cases"]}
    assert entries["scan_2"]["prediction"] is None
    assert "scan_2.nii.gz" in entries["scan_2"]["message"]
    assert len(list((out / "predictions").iterdir())) == 4


def test_an_interrupted_stage_goes_on_case_by_case(inputs, tmp_path, monkeypatch):
    out, real, done = started(tmp_path), case_journal.CaseJournal.add, []

    def interrupted(journal, result):
        real(journal, result)
        done.append(result.id)
        if len(done) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(case_journal.CaseJournal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(InferStageConfig(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    (out / "predictions" / "scan_1.nii.gz").unlink()
    run(InferStageConfig(infer=InferConfig()), inputs, out, Runtime("cpu", "serial"))
    assert done == ["scan_0", "scan_1", "scan_2", "scan_1", "scan_3", "scan_4"]


def test_a_model_of_all_cases_has_no_validation_cases(inputs, tmp_path):
    jobs = list_jobs(InferConfig(), inputs, tmp_path, ["full"])
    assert [(job.id, job.model) for job in jobs] == [("scan_4", "ensemble")]
    jobs = list_jobs(InferConfig(cases=("validation",)), inputs, tmp_path, ["1"])
    assert [(job.id, job.model) for job in jobs] == [("scan_2", "1"), ("scan_3", "1")]


def with_references(inputs, tmp_path, of):
    """References made of predictions: what `of` makes of each, an array of label values."""
    out = tmp_path / "plain"
    out.mkdir()
    run(InferStageConfig(infer=InferConfig(cases=("validation",))), inputs, out, Runtime("cpu", "serial"))
    cases = read_json(inputs["load"] / "cases.json")
    for case in cases["cases"][:4]:
        made = nib.load(out / "predictions" / f"{case['id']}.nii.gz")
        case["label"] = f"{case['id']}_label.nii.gz"
        reference = of(np.asarray(made.dataobj)).astype(np.uint8)
        nib.save(nib.Nifti1Image(reference, made.affine), tmp_path / "data" / case["label"])
    write_json(inputs["load"] / "cases.json", cases)


def only_largest(array):
    for value in (1, 3):
        components, count = scipy.ndimage.label(array == value, np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())[1:]
        for number in range(1, count + 1):
            if sizes[number - 1] < sizes.max():
                array[components == number] = 0
    return array


def test_auto_does_to_every_prediction_what_helps_on_the_validation_cases(inputs, tmp_path, caplog):
    """References hold the largest component of what is predicted, so keeping it is what helps."""
    caplog.set_level("INFO", "pipeline")
    with_references(inputs, tmp_path, only_largest)
    out = started(tmp_path)
    settings = InferConfig(postprocess="auto", uncertainty=True)
    run(InferStageConfig(infer=settings), inputs, out, Runtime("cpu", "serial"))
    record = read_json(out / "postprocess.json")
    assert (record["asked"], record["cases"]) == ("auto", 4)
    assert record["applied"]["largest_component"]
    for name in record["applied"]["largest_component"]:
        assert record["structures"][name]["gain"] > 0
        assert f"postprocessing of {name}: largest component kept; mean Dice" in caplog.text
    assert sorted(path.name for path in (out / "predictions").iterdir()) == [
        "disagreement", *(f"scan_{i}.nii.gz" for i in range(5)), "uncertainty",
    ]  # fmt: skip
    assert not (out / "raw").exists()

    explicit = tmp_path / "explicit"
    explicit.mkdir()
    steps = InferConfig(postprocess=record["applied"])
    run(InferStageConfig(infer=steps), inputs, explicit, Runtime("cpu", "serial"))
    assert read_json(explicit / "postprocess.json") == {"applied": record["applied"], "asked": "steps"}
    for i in range(5):
        chosen, asked = (nib.load(folder / "predictions" / f"scan_{i}.nii.gz") for folder in (out, explicit))
        np.testing.assert_array_equal(np.asarray(chosen.dataobj), np.asarray(asked.dataobj))
        assert chosen.header.binaryblock == asked.header.binaryblock


def test_auto_changes_nothing_where_nothing_helps_and_says_so(inputs, tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    with_references(inputs, tmp_path, lambda array: array)
    out = started(tmp_path)
    run(InferStageConfig(infer=InferConfig(postprocess="auto")), inputs, out, Runtime("cpu", "serial"))
    assert read_json(out / "postprocess.json")["applied"] == "none"
    assert "no step helps on the 4 validation cases" in caplog.text
    for i in range(4):
        name = f"predictions/scan_{i}.nii.gz"
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_auto_without_a_validation_case_does_nothing_and_says_so(inputs, tmp_path, caplog):
    out = started(tmp_path)
    settings = InferConfig(postprocess="auto", cases=("testing",))
    run(InferStageConfig(infer=settings), inputs, out, Runtime("cpu", "serial"))
    said = {"applied": "none", "asked": "auto", "cases": 0, "fewest_cases": 3, "structures": {}}
    assert read_json(out / "postprocess.json") == said
    assert "0 validation case(s) with a reference, and it is chosen on 3 or more" in caplog.text
    assert (out / "predictions" / "scan_4.nii.gz").is_file()


def test_interrupted_while_it_postprocesses_it_ends_as_if_it_had_not_been(inputs, tmp_path, monkeypatch):
    """Steps done twice could differ from steps done once: they always start from what the networks made."""
    with_references(inputs, tmp_path, only_largest)
    config = InferStageConfig(infer=InferConfig(postprocess="auto"))
    whole = tmp_path / "whole"
    whole.mkdir()
    run(config, inputs, whole, Runtime("cpu", "serial"))
    out, written, real = started(tmp_path), [], label_writing.write_label

    def interrupted(path, volume):
        real(path, volume)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.stages.infer.write_label", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, inputs, out, Runtime("cpu", "serial"))
    assert (out / "raw").is_dir() and [path.parent for path in written] == [out / "predictions"] * 2
    run(config, inputs, out, Runtime("cpu", "serial"))
    for name in ("postprocess.json", "cases.json", *(f"predictions/scan_{i}.nii.gz" for i in range(5))):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_step_for_a_structure_that_there_is_not_is_refused_before_any_work(inputs, tmp_path):
    settings = InferConfig(postprocess={"fill_holes": ("hihg",)})
    with pytest.raises(ConfigError, match="did you mean 'high'"):
        run(InferStageConfig(infer=settings), inputs, started(tmp_path), Runtime("cpu", "serial"))


def test_a_window_that_the_network_cannot_take_is_refused_with_one_that_it_can(inputs, tmp_path):
    steps = size_divisor(read_plan(inputs["plan"]).network)
    assert steps[0] > 1
    good = tuple(3 * step for step in steps)
    settings = InferConfig(roi_size=(good[0] + 1, *good[1:]))
    with pytest.raises(ConfigError, match=rf"infer.roi_size: .* is not divisible by .* unet needs; use \[{good[0]}, "):
        run(InferStageConfig(infer=settings), inputs, started(tmp_path), Runtime("cpu", "serial"))


def test_predicting_with_the_package_gives_what_the_stage_gave(inputs, tmp_path):
    """The chosen steps are in the package: the testing case, segmented anew, equals the stage's file byte for byte."""
    with_references(inputs, tmp_path, only_largest)
    out = started(tmp_path)
    config = InferConfig(postprocess="auto")
    run(InferStageConfig(infer=config), inputs, out, Runtime("cpu", "serial"))
    applied = read_json(out / "postprocess.json")["applied"]
    finished = finished_stages(tmp_path / "finished")
    shutil.copyfile(finished["load"] / "fingerprint.json", inputs["load"] / "fingerprint.json")
    folders = {**inputs, "infer": out, "evaluate": finished["evaluate"]}
    made = {"folds": [0, 1], "network": NETWORK, "loss": {"name": "dice_ce"}, "steps": 1}
    write_json(inputs["train"] / "train.json", made)
    packaged = tmp_path / "package"
    packaged.mkdir()
    (packaged / "config.yaml").write_text("name: small\n")
    package.run(PackageStageConfig(package=PackageConfig(), inference=config), folders, packaged, Runtime())
    assert load_package(packaged).settings.postprocess == PostprocessConfig.model_validate(applied)
    assert "infer" in PACKAGE.inputs
    predict(packaged, tmp_path / "data" / "scan_4.nii.gz", tmp_path / "again", isolated=False)
    again, stage = tmp_path / "again" / "scan_4.nii.gz", out / "predictions" / "scan_4.nii.gz"
    assert again.read_bytes() == stage.read_bytes()
