"""What runs a package's networks is chosen by time, among those whose labels agree."""

from __future__ import annotations

import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.inference import build_predictors
from pipeline.inference.array_backend import NumpyArrays
from pipeline.inference.backends.select_backend import Candidate, Workload, select_backend
from pipeline.inference.predictor_spec import EngineSpec
from pipeline.inference.segmentation_jobs import Job
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

EMPTY = np.zeros((1, 1, 8, 8, 8), np.float32)


class Threshold:
    """Says 1 where an intensity is above `at`, after a while."""

    disagreement = False
    backend = "counted"
    arrays = NumpyArrays()

    def __init__(self, seconds, at=0.5):
        self.seconds, self.at = seconds, at

    def inference_context(self):
        return self

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None

    def __call__(self, windows):
        time.sleep(self.seconds)
        return np.concatenate([np.full_like(windows, self.at), windows], axis=1)


def candidate(name, model, is_reference=False):
    opened = []

    def opens():
        opened.append(name)
        return {"": model}

    return Candidate(name, opens, is_reference), opened


def work(windows):
    image = np.random.default_rng(0).uniform(size=EMPTY.shape).astype(np.float32)
    return Workload("", windows, lambda models: image)


def test_the_fastest_whose_labels_agree_is_taken_and_the_log_says_so(caplog):
    caplog.set_level("INFO")
    quick_but_wrong, _ = candidate("wrong", Threshold(0.0, at=0.9))
    slow, _ = candidate("reference", Threshold(0.05), is_reference=True)
    faster, _ = candidate("faster", Threshold(0.01))
    models = select_backend([quick_but_wrong, slow, faster], work(10**9), False, EMPTY)
    assert models[""].seconds == 0.01
    assert "backend   faster: 0.01" in caplog.text
    assert "faster: " in caplog.text and "100.00% of its labels equal those of reference (" in caplog.text
    assert "equal labels" in caplog.text


def test_little_work_is_left_to_what_starts_first():
    first, _ = candidate("first", Threshold(0.02))
    second, opened = candidate("second", Threshold(0.0), is_reference=True)
    assert select_backend([first, second], work(20), False, EMPTY)[""].seconds == 0.02
    assert opened == []


def test_each_is_tried_where_it_may_still_pay():
    """100 windows of 0.02 s: half of 2 s pays for loading what takes 0.1 s, and then nothing pays for 0.5 s more."""
    first, _ = candidate("first", Threshold(0.02))
    light, opened = candidate("light", Threshold(0.002))
    heavy, left = candidate("heavy", Threshold(0.0), is_reference=True)
    offered = [first, replace(light, loading_s=0.1), replace(heavy, loading_s=0.5)]
    assert select_backend(offered, work(100), False, EMPTY)[""].seconds == 0.002
    assert opened == ["light"] and left == []


def test_where_two_disagree_the_reference_is_asked_whatever_it_costs():
    first, _ = candidate("first", Threshold(0.02))
    wrong, _ = candidate("wrong", Threshold(0.002, at=0.9))
    reference, opened = candidate("reference", Threshold(0.1), is_reference=True)
    chosen = select_backend([first, replace(wrong, loading_s=0.1), reference], work(100), False, EMPTY)
    assert chosen[""].seconds == 0.02 and opened == ["reference"]


class NotImplementedHere(Exception):
    """As ONNX Runtime has them, which are no RuntimeErrors."""


class Failing(Threshold):
    """Can be opened and not run."""

    def __call__(self, windows):
        raise NotImplementedHere


def unopened(error):
    def opens():
        raise error

    return Candidate("broken", opens)


BROKEN = {
    "no such instruction": unopened(RuntimeError("no such instruction\nand a long trace")),
    "no such operator": unopened(NotImplementedHere("no such operator")),
    "NotImplementedHere": Candidate("broken", lambda: {"": Failing(0.0)}),  # which says nothing
}


@pytest.mark.parametrize("said", BROKEN)
@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
def test_what_cannot_be_opened_or_run_is_left_out(caplog, said, place):
    inference_context, _ = candidate("working", Threshold(0.001), is_reference=True)
    offered = [inference_context]
    offered.insert(place, BROKEN[said])
    assert select_backend(offered, work(10**9), False, EMPTY)[""].seconds == 0.001
    assert f"backend   broken cannot be used: {said}\n" in caplog.text
    assert "trace" not in caplog.text


def test_where_nothing_works_the_last_one_s_error_is_raised():
    with pytest.raises(NotImplementedHere, match="no such operator"):
        select_backend([BROKEN["NotImplementedHere"], BROKEN["no such operator"]], work(1), False, EMPTY)


def test_what_a_person_can_repair_is_no_reason_to_take_another(caplog):
    """Weights that do not fit their plan, for instance."""
    inference_context, _ = candidate("working", Threshold(0.001), is_reference=True)
    with pytest.raises(DataError, match="does not fit"):
        select_backend([unopened(DataError("it does not fit")), inference_context], work(10**9), False, EMPTY)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    package = load_package(small_package(tmp_path_factory.mktemp("package") / "model"))
    return EngineSpec(package.plan, package.settings, {"": package.weights}, "cpu")


def test_without_torch_the_first_export_is_the_reference(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(build_predictors, "find_spec", lambda name: None if name == "torch" else object())
    (tmp_path / "exports").mkdir()
    for ending in ("onnx", "xml"):
        (tmp_path / "exports" / f"fold_0.{ending}").touch()
    exported = EngineSpec(spec.plan, spec.settings, {"": (tmp_path / "weights" / "fold_0.safetensors",)}, "cpu")
    assert [(c.name, c.is_reference) for c in build_predictors._candidates(exported)] == [
        ("onnx", True),
        ("openvino", False),
    ]


def test_without_exports_there_is_torch_and_an_export_that_is_asked_for_is_missed_by_name(spec):
    pytest.importorskip("onnxruntime")
    assert [c.name for c in build_predictors._candidates(spec)][:1] == ["torch"]
    asked = EngineSpec(spec.plan, spec.settings.model_copy(update={"backend": "onnx"}), spec.models, "cpu")
    with pytest.raises(DataError, match=r"exports/.*\.onnx: running the package by onnx needs it"):
        build_predictors.build_predictors(asked)


def test_exports_come_before_torch_in_fp32_and_planned_bf16_is_measured_against_fp32(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(build_predictors, "find_spec", lambda name: object())
    weights = tmp_path / "weights" / "fold_0.safetensors"
    for ending in ("onnx", "xml"):
        (tmp_path / "exports").mkdir(exist_ok=True)
        (tmp_path / "exports" / f"fold_0.{ending}").touch()
    models, bf16 = {"": (weights,)}, spec.plan.model_copy(update={"precision": "bf16"})
    settings = spec.settings
    names = [c.name for c in build_predictors._candidates(EngineSpec(bf16, settings, models, "cpu"))]
    assert names == ["onnx", "openvino", "torch", "torch in fp32"]
    assert [c.name for c in build_predictors._candidates(EngineSpec(bf16, settings, models, "cuda:0"))] == ["torch"]


def test_the_window_that_is_measured_is_of_the_first_scan_that_can_be_read(spec, tmp_path, monkeypatch):
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    voxels = np.random.default_rng(0).uniform(0, 100, (40, 60, 50)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "good.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / "out.nii.gz") for name in ("bad", "good")]
    seen = {}

    def chosen(candidates, given, overlapping, empty):
        models = candidates[0].open()
        seen["windows"], seen["window"] = given.windows, given.window(models)
        return models

    two = [Candidate(name, lambda: build_predictors._torch_models(spec, "fp32")) for name in ("a", "b")]
    monkeypatch.setattr(build_predictors, "_candidates", lambda spec: two)
    monkeypatch.setattr(build_predictors, "select_backend", chosen)
    build_predictors.build_predictors(spec, jobs)
    assert seen["window"].shape == (1, 1, *spec.plan.patch_size)
    assert seen["window"].std() > 0
    assert seen["windows"] >= 2
