"""The whole pipeline on phantoms: what a second run does, what a changed key does, and what a kill costs."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.stage_outputs import is_finished
from pipeline.cli import main
from pipeline.dataset.phantoms import make_phantoms
from pipeline.runner import STAGES

pytestmark = pytest.mark.slow

CONFIG = """\
name: tiny
device: cpu
data: {manifest: FOLDER/phantoms/manifest.json}
executor: {name: serial}
plan: {patch_size: [16, 16, 16], batch_size: 1, precision: fp32}
train:
  max_steps: 4
  network: {name: unet, channels: [4, 8, 8]}
  validation: {interval: 2, cases: 1}
  tensorboard: false
  num_threads: 1
evaluate: {bootstrap_resamples: 200}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a configuration and its finished run."""
    root = tmp_path_factory.mktemp("tiny")
    make_phantoms(root / "phantoms", cases=6, shape=(24, 24, 16))
    (root / "tiny.yaml").write_text(CONFIG.replace("FOLDER", str(root)), encoding="utf-8")
    assert main(["run", str(root / "tiny.yaml"), "--out", str(root / "run")]) == 0
    return root


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy that a test may change; its configuration names the data of the original."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def _run(root: Path, *more: str, out: str = "run") -> int:
    return main(["run", str(root / "tiny.yaml"), "--out", str(root / out), *more])


def _finished_at(root: Path) -> dict[str, str]:
    return {
        name: json.loads((root / "run" / name / "timing.json").read_text(encoding="utf-8"))["finished"]
        for name in STAGES
    }


def _executed(root: Path, *more: str) -> set[str]:
    before = _finished_at(root)
    assert _run(root, *more) == 0
    return {name for name, when in _finished_at(root).items() if when != before[name]}


def test_every_promised_file_is_there(finished):
    run = finished / "run"
    for name, stage in STAGES.items():
        assert all(any((run / name).glob(promise)) for promise in stage.outputs), name
        assert (run / name / "config.yaml").is_file()
    for path in ("load/faults.json", "plan/plan.json", "sample/folds.json", "train/fold_0/last.safetensors",
                 "train/fold_0/best.safetensors", "train/fold_0/metrics.csv", "evaluate/per_case.csv",
                 "evaluate/summary.json", "report/report.html", "log.txt", "config.yaml"):  # fmt: skip
        assert (run / path).is_file(), path
    assert not list(run.glob("*.partial")) and not list(run.glob("*.previous"))


def test_summary_and_table_have_the_documented_form(finished):
    summary = json.loads((finished / "run/evaluate/summary.json").read_text(encoding="utf-8"))
    assert set(summary["structures"]) == {"organ", "cyst", "nodule"}
    for entry in summary["structures"].values():
        for metric in ("dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_difference_ml"):
            assert {"mean", "std", "ci95", "n"} <= set(entry[metric]), metric
        assert "counts" in entry
    assert "dice" in summary["mean"] and summary["definitions"]
    with (finished / "run/evaluate/per_case.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = ["case", "structure", "dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_ref_ml", "volume_pred_ml"]
    assert set(columns) <= set(rows[0])
    folds = json.loads((finished / "run/sample/folds.json").read_text(encoding="utf-8"))["folds"]
    assert {row["case"] for row in rows} == set(folds[0]["val"])


def test_predictions_lie_on_the_inputs_grid_in_the_smallest_type(finished):
    predictions = sorted((finished / "run/infer/predictions").iterdir())
    assert predictions
    for path in predictions:
        image, pred = nib.load(finished / "phantoms/images" / path.name), nib.load(path)
        assert pred.shape == image.shape and np.array_equal(pred.affine, image.affine)
        assert pred.get_data_dtype() == np.uint8
        assert pred.header["sform_code"] == image.header["sform_code"]
        assert set(np.unique(np.asarray(pred.dataobj))) <= {0, 1, 2, 3}


def test_a_second_run_executes_nothing(copy):
    assert _executed(copy) == set()


def test_moved_data_costs_one_load(copy):
    moved = copy / "phantoms" / "manifest.json"
    assert _executed(copy, "--set", f"data.manifest={moved}") == {"load"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("report.worst_cases=1", {"report"}),
        ("evaluate.nsd_tolerance_mm=2.0", {"evaluate", "report", "package"}),
        ("infer.overlap=0.25", {"infer", "evaluate", "report", "package"}),
        ("seed=1", {"train", "infer", "evaluate", "report", "package"}),
        ("executor.workers=1", set()),
    ],
)
def test_a_changed_key_runs_its_stage_and_what_depends_on_it(copy, change, expected):
    """Digests are over contents: where a stage's new result equals the old one, those behind it have nothing to do."""
    executed = _executed(copy, "--set", change)
    first = next((name for name in STAGES if name in expected), None)
    assert executed <= expected
    assert first is None or first in executed


@pytest.mark.parametrize("output", ["plan/plan.json", "train/fold_0/last.safetensors", "evaluate/summary.json"])
def test_a_deleted_output_is_made_again(copy, output):
    stage = output.split("/")[0]
    (copy / "run" / output).unlink()
    assert stage in _executed(copy)
    assert (copy / "run" / output).is_file()


def test_an_altered_output_is_noticed(copy):
    path = copy / "run/evaluate/summary.json"
    path.write_text(path.read_text(encoding="utf-8").replace("dice", "mice", 1), encoding="utf-8")
    assert "evaluate" in _executed(copy)


def test_windows_that_the_network_cannot_take_are_refused_before_training(copy, capsys):
    before = _finished_at(copy)
    assert _run(copy, "--set", "infer.roi_size=[33, 32, 32]", "--set", "train.max_steps=5") == 2
    assert "infer.roi_size: [33, 32, 32] is not divisible by" in capsys.readouterr().err
    assert _finished_at(copy)["train"] == before["train"]  # which the changed key asks for anew


def test_a_single_stage_runs_alone_and_says_what_it_lacks(copy, capsys):
    assert main(["evaluate", str(copy / "tiny.yaml"), "--out", str(copy / "run"), "--force"]) == 0
    shutil.rmtree(copy / "run/infer")
    assert main(["evaluate", str(copy / "tiny.yaml"), "--out", str(copy / "run")]) == 2
    assert "stage infer is not finished" in capsys.readouterr().err


def test_the_resolved_configuration_beside_a_result_runs_as_it_stands(copy, finished, capsys):
    saved = copy / "run/train/config.yaml"
    assert main(["show-config", str(saved)]) == 0
    assert main(["plan", str(saved), "--out", str(finished / "run")]) == 0
    assert "up to date" in capsys.readouterr().out


KILLED_AT_A_FILE = """
import os, signal, sys
from pathlib import Path
from pipeline.cli import main

folder, moment, *arguments = sys.argv[1:]
written = []

def watch(event, what):
    if event == "os.rename":
        path = what[1]
    elif event == "open" and not isinstance(what[0], int) and what[2] & (os.O_WRONLY | os.O_RDWR):
        path = what[0]
    else:
        return
    path = Path(os.fsdecode(path))
    if folder not in map(str, path.parents):
        return
    if path.name == "stage.json" if moment == "at its end" else "config.yaml" in written:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path.name)

sys.addaudithook(watch)
main(arguments)
"""
"""A run that kills itself as it writes into a stage's folder: the first file of the stage itself, or its record."""


@pytest.mark.parametrize("stage", list(STAGES))
def test_kill_9_in_any_stage_leaves_nothing_that_looks_finished(copy, stage):
    """Killed when the stage begins to write, then when all is written but its record; then the run goes on."""
    run = copy / "run"
    for name in list(STAGES)[list(STAGES).index(stage) :]:
        shutil.rmtree(run / name)
    partial = run / f"{stage}.partial"
    for moment in ("at its beginning", "at its end"):
        arguments = ["run", str(copy / "tiny.yaml"), "--out", str(run)]
        command = [sys.executable, "-c", KILLED_AT_A_FILE, str(partial), moment, *arguments]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert partial.is_dir() and not is_finished(partial) and not (run / stage).exists()
        promised = [any(partial.glob(promise)) for promise in STAGES[stage].outputs]
        assert all(promised) if moment == "at its end" else not all(promised)
    assert _run(copy) == 0
    assert all(is_finished(run / name) for name in STAGES) and not list(run.glob("*.partial"))


def test_predict_needs_nothing_but_the_package(copy, tmp_path):
    package, scans, output = tmp_path / "moved", tmp_path / "scans", tmp_path / "out"
    shutil.move(copy / "run/package", package)
    scans.mkdir()
    names = sorted(path.name for path in (copy / "phantoms/images").iterdir())[:2]
    for name in names:
        shutil.copy(copy / "phantoms/images" / name, scans)
    (scans / "broken.nii.gz").write_bytes((scans / names[0]).read_bytes()[:2000])
    arguments = ["predict", "--model", str(package), "--input", str(scans), "--output", str(output), "--device", "cpu"]
    assert main(arguments) == 4
    assert set(names) == {path.name for path in output.glob("*.nii.gz")}


def test_one_subject_makes_a_package_without_being_scored(tmp_path):
    make_phantoms(tmp_path / "phantoms", cases=1, shape=(24, 24, 16))
    (tmp_path / "tiny.yaml").write_text(
        CONFIG.replace("FOLDER", str(tmp_path)).replace("max_steps: 4", "max_steps: 1\n  folds: full")
    )
    assert _run(tmp_path) == 0
    assert "nothing is scored" in (tmp_path / "run/log.txt").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run/package/metrics/summary.json").read_text(encoding="utf-8"))["n_cases"] == 0
    assert (tmp_path / "run/package/weights/fold_full.safetensors").is_file()
