"""A worker that the kernel kills is named, its case tried once more alone, and the others go on."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.inference.jobs import Job
from pipeline.serving import segmenting
from pipeline.serving.model import load_package
from pipeline.serving.spec import EngineSpec
from tests.serving.small_package import small_package

STAND_IN = """
import json, os, pathlib, signal, sys
request = json.loads(sys.stdin.readline())
fatal, tries = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for job in request["jobs"]:
    with tries.open("a") as stream:
        stream.write(f"{job['id']}{'' if request['ahead'] else ' alone'}\\n")
    if job["id"] == "greedy" or (job["id"] == "unlucky" and not fatal.exists()):
        fatal.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"result": {"id": job["id"], "status": "done"}}), flush=True)
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    package = load_package(small_package(tmp_path_factory.mktemp("package") / "model"))
    return EngineSpec(package.plan, package.settings, {"": package.weights}, "cpu", package.fingerprint)


def run_stand_in(spec, tmp_path, monkeypatch, cases):
    tries = tmp_path / "tries"
    monkeypatch.setattr(segmenting, "WORKER", (sys.executable, "-c", STAND_IN, str(tmp_path / "fatal"), str(tries)))
    jobs = [Job(case, (Path(f"{case}.nii.gz"),), tmp_path / f"{case}.nii.gz") for case in cases]
    return list(segmenting.segment_isolated(jobs, spec)), tries.read_text(encoding="utf-8").split("\n")[:-1]


def test_a_killed_case_is_tried_once_more_alone(spec, tmp_path, monkeypatch, caplog):
    results, tries = run_stand_in(spec, tmp_path, monkeypatch, ["a", "unlucky", "b"])
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("unlucky", "done"), ("b", "done")]
    assert tries == ["a", "unlucky", "unlucky alone", "b"]
    assert "unlucky  the process that segmented it was killed (SIGKILL), most likely for want of memory" in caplog.text


def test_killed_again_it_fails_and_the_others_go_on(spec, tmp_path, monkeypatch):
    results, tries = run_stand_in(spec, tmp_path, monkeypatch, ["a", "greedy", "b"])
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("greedy", "failed"), ("b", "done")]
    assert tries == ["a", "greedy", "greedy alone", "b"]
    assert "killed (SIGKILL), most likely for want of memory" in results[1].message


def test_the_spec_goes_through_json_unchanged(spec):
    assert EngineSpec.from_json(spec.to_json()) == spec


@pytest.mark.slow
def test_the_real_worker_gives_the_labels_of_this_process(spec, tmp_path):
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(0, 100, (30, 40, 30)), np.eye(4)), tmp_path / "a.nii.gz")
    jobs = [Job(name, (tmp_path / "a.nii.gz",), tmp_path / f"{name}.nii.gz") for name in ("there", "here")]
    (there,), (here,) = segmenting.segment_isolated(jobs[:1], spec), segmenting.segment_here(jobs[1:], spec)
    assert (there.status, here.status) == ("done", "done")
    found = [np.asarray(nib.load(job.output).dataobj) for job in jobs]
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_what_ends_the_worker_is_raised_here(spec, tmp_path):
    broken = EngineSpec(spec.plan, spec.settings, {"": (tmp_path / "absent.safetensors",)}, "cpu")
    with pytest.raises(DataError, match="there is no such weights file"):
        list(segmenting.segment_isolated([Job("a", (tmp_path / "a.nii.gz",), tmp_path / "b.nii.gz")], broken))
