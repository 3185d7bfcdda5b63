"""What runs a package's networks is chosen by time, among those whose labels agree."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.backends.available_backends import candidates_for
from pipeline.inference.backends.select_backend import Candidate, Workload, select_backend
from pipeline.inference.backends.window_workload import workload_of
from pipeline.inference.build_predictors import build_predictors
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segmentation_jobs import Job
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

EMPTY = np.zeros((1, 1, 8, 8, 8), np.float32)


class Clock:
    """A clock that goes on only while a network runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Threshold:
    """Says 1 where an intensity is above `at`, and takes `seconds` of the clock for it."""

    disagreement = False
    backend = "counted"
    arrays = NumpyArrays()

    def __init__(self, clock, seconds, at=0.5):
        self.clock, self.seconds, self.at = clock, seconds, at

    def inference_context(self):
        return self

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None

    def __call__(self, windows):
        self.clock.now += self.seconds
        return np.concatenate([np.full_like(windows, self.at), windows], axis=1)


@pytest.fixture
def clock():
    return Clock()


def candidate(name, model, is_reference=False):
    opened = []

    def opens():
        opened.append(name)
        return {"": model}

    return Candidate(name, opens, is_reference), opened


def work(windows):
    image = np.random.default_rng(0).uniform(size=EMPTY.shape).astype(np.float32)
    return Workload("", windows, lambda models: image)


def test_the_fastest_whose_labels_agree_is_taken_and_the_log_says_so(caplog, clock):
    caplog.set_level("INFO")
    quick_but_wrong, _ = candidate("wrong", Threshold(clock, 0.001, at=0.9))
    slow, _ = candidate("reference", Threshold(clock, 0.05), is_reference=True)
    faster, _ = candidate("faster", Threshold(clock, 0.01))
    models = select_backend([quick_but_wrong, slow, faster], work(10**9), False, EMPTY, clock)
    assert models[""].seconds == 0.01
    assert (
        "backend   faster: 0.010 s a window, 100.00% of its labels equal those of reference (wrong 0.001 s, but "
    ) in caplog.text
    assert "equal labels; reference 0.050 s)" in caplog.text


def test_little_work_is_left_to_what_starts_first(clock):
    first, _ = candidate("first", Threshold(clock, 0.02))
    second, opened = candidate("second", Threshold(clock, 0.0), is_reference=True)
    assert select_backend([first, second], work(20), False, EMPTY, clock)[""].seconds == 0.02
    assert opened == []


def test_each_is_tried_where_it_may_still_pay(clock):
    """100 windows of 0.02 s: half of 2 s pays for loading what takes 0.1 s, and then nothing pays for 0.5 s more."""
    first, _ = candidate("first", Threshold(clock, 0.02))
    light, opened = candidate("light", Threshold(clock, 0.002))
    heavy, left = candidate("heavy", Threshold(clock, 0.0), is_reference=True)
    offered = [first, replace(light, loading_s=0.1), replace(heavy, loading_s=0.5)]
    assert select_backend(offered, work(100), False, EMPTY, clock)[""].seconds == 0.002
    assert opened == ["light"] and left == []


def test_where_two_disagree_the_reference_is_asked_whatever_it_costs(clock):
    first, _ = candidate("first", Threshold(clock, 0.02))
    wrong, _ = candidate("wrong", Threshold(clock, 0.002, at=0.9))
    reference, opened = candidate("reference", Threshold(clock, 0.1), is_reference=True)
    chosen = select_backend([first, replace(wrong, loading_s=0.1), reference], work(100), False, EMPTY, clock)
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
    "NotImplementedHere": Candidate("broken", lambda: {"": Failing(None, 0.0)}),  # which says nothing
}


@pytest.mark.parametrize("said", BROKEN)
@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
def test_what_cannot_be_opened_or_run_is_left_out(caplog, clock, said, place):
    inference_context, _ = candidate("working", Threshold(clock, 0.001), is_reference=True)
    offered = [inference_context]
    offered.insert(place, BROKEN[said])
    assert select_backend(offered, work(10**9), False, EMPTY, clock)[""].seconds == 0.001
    assert f"backend   broken cannot be used: {said}\n" in caplog.text
    assert "trace" not in caplog.text


def test_where_nothing_works_the_last_one_s_error_is_raised(clock):
    with pytest.raises(NotImplementedHere, match="no such operator"):
        select_backend([BROKEN["NotImplementedHere"], BROKEN["no such operator"]], work(1), False, EMPTY, clock)


def test_what_a_person_can_repair_is_no_reason_to_take_another(caplog, clock):
    """Weights that do not fit their plan, for instance."""
    inference_context, _ = candidate("working", Threshold(clock, 0.001), is_reference=True)
    with pytest.raises(DataError, match="does not fit"):
        select_backend([unopened(DataError("it does not fit")), inference_context], work(10**9), False, EMPTY, clock)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    package = load_package(small_package(tmp_path_factory.mktemp("package") / "model"))
    return PredictorSpec(package.plan, package.settings, {"": package.weights}, "cpu")


def names_of(candidates):
    return [candidate.name for candidate in candidates]


def exported(spec, folder, **changes):
    """The same networks with files of weights and exports in `folder`, of which none is opened here."""
    (folder / "exports").mkdir()
    for ending in ("onnx", "xml"):
        (folder / "exports" / f"fold_0.{ending}").touch()
    return replace(spec, models={"": (folder / "weights" / "fold_0.safetensors",)}, **changes)


def test_without_torch_the_first_export_is_the_reference(spec, tmp_path):
    candidates = candidates_for(exported(spec, tmp_path), installed=lambda package: package != "torch")
    assert [(one.name, one.is_reference) for one in candidates] == [("onnx", True), ("openvino", False)]


def test_without_exports_there_is_torch_and_an_export_that_is_asked_for_is_missed_by_name(spec):
    pytest.importorskip("onnxruntime")
    assert names_of(candidates_for(spec))[:1] == ["torch"]
    asked = replace(spec, settings=spec.settings.model_copy(update={"backend": "onnx"}))
    with pytest.raises(DataError, match=r"exports/.*\.onnx: running the package by onnx needs it"):
        build_predictors(asked)


def test_exports_come_before_torch_in_fp32_and_planned_bf16_is_measured_against_fp32(spec, tmp_path):
    bf16 = exported(spec, tmp_path, plan=spec.plan.model_copy(update={"precision": "bf16"}))
    on_gpu = replace(bf16, device="cuda:0")
    assert names_of(candidates_for(bf16, installed=lambda package: True)) == [
        "onnx",
        "openvino",
        "torch",
        "torch in fp32",
    ]
    assert names_of(candidates_for(on_gpu, installed=lambda package: True)) == ["torch"]


def test_the_window_that_is_measured_is_of_the_first_scan_that_can_be_read(spec, tmp_path, caplog):
    """Two candidates, torch as planned and in fp32: what they have to do is asked for, and the log tells it."""
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    voxels = np.random.default_rng(0).uniform(0, 100, (40, 60, 50)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "good.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / "out.nii.gz") for name in ("bad", "good")]
    two = replace(spec, plan=spec.plan.model_copy(update={"precision": "bf16"}))
    first, _ = candidates_for(two, installed=lambda package: package == "torch")
    work = workload_of(two, jobs)
    window = work.window(first.open())
    assert window.shape == (1, 1, *spec.plan.patch_size)
    assert window.std() > 0
    assert work.windows >= 2
    caplog.set_level("INFO")
    build_predictors(two, jobs)
    assert f"{work.windows} windows take about" in caplog.text
