"""Memory is predicted before it is taken, and what does not fit is kept smaller or refused, never killed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.base.errors import DataError
from pipeline.base.resident import resident_memory_gib
from pipeline.data.geometry import Grid
from pipeline.inference import memory, predictor
from pipeline.inference.ensemble import TorchModel
from pipeline.inference.predictor import Predictor
from pipeline.inference.settings import InferenceSettings
from tests.inference.test_predictor import nearest_class, plan_for

CPU = torch.device("cpu")
LARGE = Grid((300, 300, 500), np.diag([1.0, 1.0, 1.0, 1.0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--accumulate", "half"),
        ("--accumulate", "fp32"),
        ("--accumulate", "half", "--image", "96,96,144"),
    ],
)
def test_the_predicted_peak_is_the_measured_one_within_a_fifth(options, repository):
    """80 classes in windows of 64 voxels, so that stores, network and blocks are as much as the process had before; and
    no window pulled back, for which room is kept that is touched last."""
    command = [sys.executable, "benchmarks/inference_memory.py", "--model", "128,128,192", "--roi", "64"]
    done = subprocess.run(
        [*command, "--classes", "80", *options], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    measured = seen["peak_gib"] - seen["base_gib"]
    assert seen["needs_gib"] > 0.2
    assert seen["needs_gib"] == pytest.approx(measured, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--files", "1"), ("--files", "3"), ("--files", "3", "--model", "96,96,96")])
def test_of_files_with_few_classes_too(options, repository):
    """From the file to the written segmentation, as `segpipe predict` does it: here reading and the image are most."""
    command = [sys.executable, "benchmarks/inference_memory.py", "--roi", "64", "--classes", "3"]
    grids = ["--model", "256,256,192", "--image", "256,256,192", "--accumulate", "fp32"]
    done = subprocess.run([*command, *grids, *options], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["classes_found"] == 3
    assert seen["predicted_gib"] == pytest.approx(seen["peak_gib"], rel=0.2)


def predictor_with(gib, **settings):
    """A predictor that may use so much on top of what the process has; the network itself takes next to nothing."""
    settings = InferenceSettings(memory_gib=resident_memory_gib() + gib, **settings)
    many = plan_for(structures={f"structure {k}": (k,) for k in range(1, 60)}, patch_size=(64, 64, 64))
    made = Predictor(many, TorchModel([nearest_class], CPU), settings)
    made.__dict__["network_gib"] = 0.0
    return made


def test_too_little_for_fp32_gives_stores_of_half_the_size():
    needs = predictor_with(1.0).needs(LARGE)
    between = 0.5 * (needs.fp32.peak + needs.half.peak)
    assert needs.half.stores < 0.8 * needs.fp32.stores
    assert predictor_with(between).choose(needs) is True
    assert predictor_with(needs.fp32.peak + 0.3).choose(needs) is False


def test_too_little_for_both_is_refused_with_figures_and_cure(monkeypatch):
    monkeypatch.setattr(predictor, "resident_memory_gib", lambda: 0.25)
    small = predictor_with(0.01)
    needs = small.needs(LARGE)
    with pytest.raises(DataError, match=r"needs about \d\.\d GiB of memory beside the 0\.2 GiB .* infer\.memory_gib"):
        small.choose(needs)


def test_a_small_memory_gib_refuses_the_case_before_its_voxels_are_read(tmp_path):
    """The whole way: the batch goes on, the case is refused by name."""
    from pipeline.inference.batch import segment
    from pipeline.inference.jobs import Job

    small = predictor_with(1e-6)
    write_scan(tmp_path / "a.nii.gz")
    jobs = [Job("a", (tmp_path / "a.nii.gz",), tmp_path / "out.nii.gz")]
    (result,) = segment(jobs, lambda name: small)
    assert result.status == "failed"
    assert "GiB are free" in result.message
    assert not (tmp_path / "out.nii.gz").exists()


def test_what_is_free_is_never_all_that_the_machine_has(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_gib", lambda: 10.0)
    assert memory.free_memory_gib(InferenceSettings()) == pytest.approx(9.0)
    assert memory.free_memory_gib(InferenceSettings(memory_gib=1e-3)) < 0


def test_a_scan_whose_voxels_would_multiply_is_remarked_on_or_refused_by_both_grids():
    """6 × 6 × 6 voxels of 50 × 50 × 80 mm would be 43 million at 1 mm: minutes of work on nothing."""
    one = Predictor(plan_for(), TorchModel([nearest_class], CPU))
    coarse = Grid((6, 6, 6), np.diag([50.0, 50.0, 80.0, 1.0]))
    with pytest.raises(
        DataError, match=r"6 × 6 × 6 voxels of 50 × 50 × 80 mm become 300 × 300 × 480 voxels of 1 × 1 × 1"
    ):
        one.enlargement(coarse)
    assert "20 times as many" in one.enlargement(Grid((60, 60, 6), np.diag([1.0, 1.0, 20.0, 1.0])))
    assert one.enlargement(Grid((60, 60, 6), np.diag([1.0, 1.0, 5.0, 1.0]))) == ""


def test_such_a_scan_fails_at_once_and_the_others_go_on(tmp_path, caplog):
    from pipeline.inference.batch import segment
    from pipeline.inference.jobs import Job

    write_scan(tmp_path / "a.nii.gz", (6, 6, 6), (50.0, 50.0, 80.0))
    write_scan(tmp_path / "b.nii.gz", (20, 20, 3), (1.0, 1.0, 10.0))
    write_scan(tmp_path / "c.nii.gz")
    one = Predictor(plan_for(), TorchModel([nearest_class], CPU))
    jobs = [Job(case, (tmp_path / f"{case}.nii.gz",), tmp_path / f"{case}_out.nii.gz") for case in "abc"]
    results = list(segment(jobs, lambda name: one))
    assert [result.status for result in results] == ["failed", "done", "done"]
    assert "300 × 300 × 480" in results[0].message
    assert "b  20 × 20 × 3 voxels of 1 × 1 × 10 mm become 20 × 20 × 30" in caplog.text
    assert max(result.seconds for result in results) < 60


def write_scan(path, shape=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0)):
    import nibabel as nib

    voxels = np.random.default_rng(0).uniform(0, 2, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing_mm, 1.0])), path)
