"""The command: light to start, clear when used wrongly, exit codes as documented."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from pipeline.cli import main
from pipeline.commands import STAGE_HELP
from pipeline.dataset.manifest import write_manifest
from tests.dataset.small_datasets import dataset, save
from tests.dataset.small_datasets import label as boxes
from tests.layouts.small_layouts import image, label, truncate

HEAVY = ("torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "matplotlib", "pydantic", "yaml", "rich")


def _python(program: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy():
    """Start-up is kept short by what is not imported; this fails where somebody adds a heavy import."""
    program = f"""
        import sys
        from pipeline.cli import main
        try:
            main(["--help"])
        except SystemExit as stop:
            assert stop.code == 0
        print(",".join(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == ""
    assert all(command in result.stdout for command in ("run", "check", "predict", "score", "demo", *STAGE_HELP))


def test_reading_a_configuration_imports_neither_torch_nor_monai(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("name: a\ndata: {manifest: m.json}\n")
    program = f"""
        import sys
        from pipeline.cli import main
        assert main(["show-config", {str(config)!r}]) == 0
        print(",".join(name for name in ("torch", "monai", "matplotlib") if name in sys.modules), file=sys.stderr)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == ""
    assert "name: a" in result.stdout


def test_module_and_command_are_the_same_program():
    result = subprocess.run([sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("segpipe ")


def _said(capsys, *arguments: str) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_missing_configuration_is_a_sentence_and_exit_2(capsys, tmp_path):
    code, text = _said(capsys, "run", tmp_path / "none.yaml")
    assert code == 2 and "none.yaml: there is no such file" in text and "Traceback" not in text


def test_an_unknown_command_ends_with_2():
    with pytest.raises(SystemExit) as stop:
        main(["fly"])
    assert stop.value.code == 2


def test_a_stage_whose_inputs_are_missing_says_which_and_how(capsys, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("name: a\ndata: {manifest: m.json}\n")
    code, text = _said(capsys, "train", config, "--out", tmp_path / "run")
    assert code == 2
    assert "stage load is not finished" in text and "segpipe load CONFIG" in text


def test_a_single_stage_notices_changed_data_and_goes_on_without_any(capsys, tmp_path):
    """What an earlier stage was made from is compared; data that is not there is not, as on another machine."""
    write_manifest(tmp_path / "data/manifest.json", dataset(tmp_path / "data"))
    config, run = tmp_path / "a.yaml", ("--out", tmp_path / "run")
    config.write_text(
        "name: a\ndevice: cpu\ndata: {manifest: data/manifest.json}\nexecutor: {name: serial}\n"
        "plan: {patch_size: [16, 16, 16], batch_size: 1, precision: fp32}\n"
        "train: {max_steps: 1, network: {name: unet, channels: [4, 8, 8]}}\n"
    )
    assert _said(capsys, "load", config, *run)[0] == _said(capsys, "plan", config, *run)[0] == 0
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert _said(capsys, "plan", config, *run)[0] == 0
    moved.rename(tmp_path / "data")
    code, text = _said(capsys, "plan", config, *run, "--set", "load.grid_tolerance_mm=0.5")
    assert code == 2 and "changed: load.grid_tolerance_mm); `segpipe load CONFIG` brings it up to date" in text
    save(tmp_path / "data/labels/c1.nii.gz", boxes())
    code, text = _said(capsys, "sample", config, *run)
    assert code == 2 and "changed: labels/c1.nii.gz); `segpipe load CONFIG` brings it up to date" in text
    assert _said(capsys, "load", config, *run)[0] == 0
    code, text = _said(capsys, "sample", config, *run)
    assert code == 2 and "changed: what load wrote); `segpipe plan CONFIG` brings it up to date" in text


def test_a_second_process_on_the_same_run_folder_is_told_so(capsys, tmp_path):
    import fcntl

    config, folder = tmp_path / "a.yaml", tmp_path / "run"
    config.write_text("name: a\ndata: {manifest: m.json}\n")
    folder.mkdir()
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        code, text = _said(capsys, "run", config, "--out", folder)
    assert code == 2 and "another process works in" in text


def test_a_missing_manifest_is_a_data_fault(capsys, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("name: a\ndata: {manifest: m.json}\n")
    code, text = _said(capsys, "run", config, "--out", tmp_path / "run")
    assert code == 3 and "m.json: there is no such file" in text
    assert "m.json: there is no such file" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_from_a_folder_to_a_configuration_its_faults_and_another_layout(capsys, tmp_path):
    """init, check (of both files, as text, JSON and page) and convert, as they are typed."""
    for case in range(3):
        image(tmp_path / f"data/images/c{case}.nii.gz")
        label(tmp_path / f"data/labels/c{case}.nii.gz")
    config, page = tmp_path / "mine.yaml", tmp_path / "faults.html"
    code, said = _said(capsys, "init", str(tmp_path / "data"), "-o", str(config), "--labels", "organ=1")
    assert code == 0 and "3 training and 0 testing cases" in said and "next: segpipe check" in said
    for source in (config, tmp_path / "mine.manifest.json"):
        code, said = _said(capsys, "check", str(source))
        assert code == 0 and "3 cases" in said
    truncate(tmp_path / "data/images/c1.nii.gz")
    assert main(["check", str(config), "--json", "--html", str(page)]) == 3
    faults = json.loads(capsys.readouterr().out)
    assert "truncated" in json.dumps(faults) and "c1" in json.dumps(faults)
    assert "c1" in page.read_text(encoding="utf-8")
    image(tmp_path / "data/images/c1.nii.gz")
    code, said = _said(capsys, "convert", str(config), "--to", "nnunet", "--output", str(tmp_path / "raw"))
    assert code == 0 and "wrote 3 cases" in said
    assert len(list((tmp_path / "raw/imagesTr").iterdir())) == 3
    assert main(["convert", str(config), "--to", "nnunet", "--output", str(tmp_path / "raw")]) == 2
