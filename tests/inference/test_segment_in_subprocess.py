"""A worker that the kernel kills is named, its case tried once more alone, and the others go on."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from pipeline.base.errors import DataError
from pipeline.inference import segment_in_subprocess as subprocess_way
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import segment_in_process
from pipeline.inference.segmentation_jobs import Job
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

STAND_IN = """
import json, os, pathlib, signal, sys
request = json.loads(sys.stdin.readline())
fatal, tries, before = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), ""
for job in request["jobs"]:
    with tries.open("a") as stream:
        stream.write(f"{job['id']}{'' if request['ahead'] else ' alone'}\\n")
    print(json.dumps({"begun": job["id"]}), flush=True)
    if job["id"] == "greedy" or (job["id"] == "unlucky" and not fatal.exists()):
        fatal.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if before == "hog":
        os.kill(os.getpid(), signal.SIGKILL)
    if before:  # as the worker does, which writes one case while it works on the next
        print(json.dumps({"result": {"id": before, "status": "done"}}), flush=True)
    before = job["id"]
if before == "hog":
    os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps({"result": {"id": before, "status": "done"}}), flush=True)
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    package = load_package(small_package(tmp_path_factory.mktemp("package") / "model"))
    return PredictorSpec(package.plan, package.settings, {"": package.weights}, "cpu", package.fingerprint)


def run_stand_in(spec, tmp_path, monkeypatch, cases):
    tries = tmp_path / "tries"
    monkeypatch.setattr(subprocess_way, "WORKER", (sys.executable, "-c", STAND_IN, str(tmp_path / "fatal"), str(tries)))
    jobs = [Job(case, (Path(f"{case}.nii.gz"),), tmp_path / f"{case}.nii.gz") for case in cases]
    return list(subprocess_way.segment_in_subprocess(jobs, spec)), tries.read_text(encoding="utf-8").split("\n")[:-1]


def test_a_killed_case_is_tried_once_more_alone(spec, tmp_path, monkeypatch, caplog):
    results, tries = run_stand_in(spec, tmp_path, monkeypatch, ["a", "unlucky", "b"])
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("unlucky", "done"), ("b", "done")]
    assert tries == ["a", "unlucky", "a alone", "unlucky alone", "b"]  # which of both it was is not known
    assert "unlucky  the process that segmented it was killed (SIGKILL), most likely for want of memory" in caplog.text


def test_killed_again_it_fails_and_the_others_go_on(spec, tmp_path, monkeypatch):
    results, tries = run_stand_in(spec, tmp_path, monkeypatch, ["a", "greedy", "b"])
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("greedy", "failed"), ("b", "done")]
    assert tries == ["a", "greedy", "a alone", "greedy alone", "b"]
    assert "killed (SIGKILL), most likely for want of memory" in results[1].message


def test_a_case_whose_writing_is_the_hog_is_the_one_that_fails(spec, tmp_path, monkeypatch):
    """It is killed when the next case is with the network already, and again when it is alone."""
    results, tries = run_stand_in(spec, tmp_path, monkeypatch, ["a", "hog", "b", "c"])
    assert [(r.id, r.status) for r in results] == [("a", "done"), ("hog", "failed"), ("b", "done"), ("c", "done")]
    assert tries == ["a", "hog", "b", "hog alone", "b alone", "c"]


def test_a_worker_that_ends_before_its_cases_are_done_is_a_fault_of_ours(spec, tmp_path, monkeypatch):
    """Not a reason to start it again and again."""
    monkeypatch.setattr(subprocess_way, "WORKER", (sys.executable, "-c", "import sys; sys.stdin.readline()"))
    with pytest.raises(RuntimeError, match="ended with 0 before all cases were done"):
        list(subprocess_way.segment_in_subprocess([Job("a", (tmp_path / "a.nii.gz",), tmp_path / "b.nii.gz")], spec))


def test_the_spec_goes_through_json_unchanged(spec):
    assert PredictorSpec.from_json(spec.to_json()) == spec


@pytest.mark.slow
def test_the_real_worker_gives_the_labels_of_this_process(spec, tmp_path):
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(0, 100, (30, 40, 30)), np.eye(4)), tmp_path / "a.nii.gz")
    jobs = [Job(name, (tmp_path / "a.nii.gz",), tmp_path / f"{name}.nii.gz") for name in ("there", "here")]
    (there,), (here,) = (
        subprocess_way.segment_in_subprocess(jobs[:1], spec),
        segment_in_process(jobs[1:], spec),
    )
    assert (there.status, here.status) == ("done", "done")
    found = [np.asarray(nib.load(job.output).dataobj) for job in jobs]
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_what_ends_the_worker_is_raised_here(spec, tmp_path):
    broken = PredictorSpec(spec.plan, spec.settings, {"": (tmp_path / "absent.safetensors",)}, "cpu")
    with pytest.raises(DataError, match="there is no such weights file"):
        list(subprocess_way.segment_in_subprocess([Job("a", (tmp_path / "a.nii.gz",), tmp_path / "b.nii.gz")], broken))


@pytest.mark.slow
def test_the_real_worker_killed_twice_is_named_and_the_next_case_is_done(spec, tmp_path, caplog):
    """The scan is a pipe that nobody fills: whoever opens it is the worker, and is killed with it in its hands."""
    os.mkfifo(tmp_path / "greedy.nii.gz")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).uniform(0, 100, (30, 40, 30)), np.eye(4)), tmp_path / "b.nii.gz")
    jobs = [Job(case, (tmp_path / f"{case}.nii.gz",), tmp_path / f"{case}_out.nii.gz") for case in ("greedy", "b")]
    killer = threading.Thread(target=kill_who_opens, args=(tmp_path / "greedy.nii.gz", 2), daemon=True)
    killer.start()
    results = list(subprocess_way.segment_in_subprocess(jobs, spec))
    killer.join(timeout=60)
    assert [(result.id, result.status) for result in results] == [("greedy", "failed"), ("b", "done")]
    assert "killed (SIGKILL), most likely for want of memory" in results[0].message
    assert results[0].message.endswith("twice")
    assert "greedy  the process that segmented it was killed (SIGKILL)" in caplog.text
    assert "trying it once more alone" in caplog.text
    assert not (tmp_path / "greedy_out.nii.gz").exists()


def kill_who_opens(pipe, times):
    """Kills so many of our child processes, each when it waits at `pipe`."""
    killed = set()
    while len(killed) < times:
        time.sleep(0.05)
        try:
            held = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # an error as long as nobody reads
        except OSError:
            continue
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that was killed may still be on its way out
                if child.pid not in killed and "pipeline.inference.segmentation_worker" in child.cmdline():
                    child.kill()
                    killed.add(child.pid)
        os.close(held)
