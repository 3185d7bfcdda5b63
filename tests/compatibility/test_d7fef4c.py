"""Files that commit d7fef4c wrote, the last one before the large move of modules: this code still works with them.

What the fixtures are and how they were made: `d7fef4c/expected/README.md`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.base.files import read_json, write_json
from pipeline.cli import main
from pipeline.models.checkpoint import load_weights
from pipeline.stages.stage_table import STAGES
from tests.compatibility.conftest import WRITTEN

STEP_OF_THE_KILL = 46


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the fixtures were written with; bytes of weights depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(folder: Path, name: str, *arguments: str) -> int:
    return main(["run", str(folder / "config.yaml"), "--out", str(folder / name), *arguments])


def last_weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(run_folder / "train" / "fold_0" / "last.safetensors")


def calculates_as_the_machine_that_wrote_them() -> bool:
    """Whether torch gives the same bytes here, told by code of torch alone (`expected/README.md`)."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 8, 3), torch.nn.InstanceNorm3d(8, affine=True), torch.nn.Conv3d(8, 4, 3)
    )
    logits = network(torch.randn(2, 1, 16, 16, 16))
    torch.nn.functional.cross_entropy(logits, torch.zeros(2, 12, 12, 12, dtype=torch.long)).backward()
    gradients = b"".join(parameter.grad.numpy().tobytes() for parameter in network.parameters())
    return hashlib.sha256(gradients).hexdigest() == read_json(WRITTEN / "expected" / "machine.json")["canary"]


def test_a_finished_run_is_up_to_date(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(old, "run") == 0
    said = capsys.readouterr().out
    assert all(f"{name:<9} up to date" in said for name in STAGES), said


def test_a_changed_key_still_runs_what_reads_it_and_nothing_else(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(old, "run", "--set", "report.worst_cases=0") == 0
    said = capsys.readouterr().out
    assert "report    runs again: changed: report.worst_cases" in said
    assert all(f"{name:<9} up to date" in said for name in STAGES if name != "report"), said


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_training_goes_on_and_ends_as_one_that_was_never_killed(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(old, "killed", "--only", "train") == 0
    assert f"resumed at step {STEP_OF_THE_KILL}" in capsys.readouterr().out
    resumed, stored = last_weights(old / "killed"), last_weights(WRITTEN / "run")
    shutil.rmtree(old / "run" / "train")
    assert run(old, "run", "--only", "train") == 0
    assert "resumed" not in capsys.readouterr().out
    uninterrupted = last_weights(old / "run")
    assert resumed.keys() == uninterrupted.keys() == stored.keys()
    same_machine = calculates_as_the_machine_that_wrote_them()
    for name, weights in uninterrupted.items():
        # The first steps of the killed training were made by the machine that wrote the fixtures.
        assert not same_machine or torch.equal(resumed[name], weights), name
        close = 1e-4 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1e-2
        torch.testing.assert_close(weights, stored[name], atol=close, rtol=0)
        torch.testing.assert_close(resumed[name], stored[name], atol=close, rtol=0)


@pytest.mark.slow
def test_the_package_gives_the_masks_that_it_gave(old: Path, tmp_path: Path) -> None:
    scans, package = old / "phantoms" / "images", old / "run" / "package"
    command = ["predict", "--model", str(package), "--input", str(scans), "--output", str(tmp_path / "masks")]
    assert main([*command, "--device", "cpu"]) == 0
    names = sorted(path.name for path in (WRITTEN / "expected" / "masks").glob("*.nii.gz"))
    assert len(names) == 5
    alike = structure_voxels = 0
    for name in names:
        before, now = (nib.load(folder / name) for folder in (WRITTEN / "expected" / "masks", tmp_path / "masks"))
        assert np.array_equal(before.affine, now.affine) and before.get_data_dtype() == now.get_data_dtype()
        expected, found = np.asarray(before.dataobj), np.asarray(now.dataobj)
        either = (expected > 0) | (found > 0)
        structure_voxels += int(either.sum())
        alike += int((expected == found)[either].sum())
    assert alike >= 0.999 * structure_voxels > 0


def test_an_output_that_was_altered_is_noticed(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixtures would prove nothing if everything counted as up to date."""
    monkeypatch.chdir(old)  # the record of where the scans lie is relative
    scores = old / "run" / "evaluate" / "summary.json"
    write_json(scores, {**read_json(scores), "mean": {}})
    assert run(old, "run", "--only", "evaluate") == 0
    assert "evaluate  runs again: its output summary.json was altered" in capsys.readouterr().out
