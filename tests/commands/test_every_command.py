"""Every command, called as a user calls it: its module is found by its name, and it does its work or says why not."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main, module_of
from pipeline.commands import COMMAND_HELP, STAGE_HELP
from pipeline.stages.stage_table import STAGES
from pipeline.viewer import viewer_server

WRITTEN = Path(__file__).parents[1] / "compatibility" / "d7fef4c"
RUN = WRITTEN / "run"


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMAND_HELP)
def test_a_command_has_a_module_of_its_name_which_does_not_load_with_the_program(command: str) -> None:
    module = import_module(module_of(command))
    assert callable(module.add_arguments) and callable(module.run)
    assert module.__name__.rpartition(".")[2] == ("single_stage" if command in STAGES else command.replace("-", "_"))


def test_each_stage_is_a_command() -> None:
    assert list(STAGE_HELP) == list(STAGES)


@pytest.mark.parametrize("command", COMMAND_HELP)
def test_help_names_the_command_and_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(command, "--help")
    assert stop.value.code == 0 and f"usage: segpipe {command}" in capsys.readouterr().out


def test_show_config_prints_a_configuration_that_runs_as_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("show-config", WRITTEN / "config.yaml", "--set", "seed=5") == 0
    first = capsys.readouterr().out
    assert yaml.safe_load(first)["seed"] == 5
    (tmp_path / "again.yaml").write_text(first, encoding="utf-8")
    assert call("show-config", tmp_path / "again.yaml") == 0
    assert capsys.readouterr().out == first
    assert call("show-config", "--schema") == 0
    assert "train" in json.loads(capsys.readouterr().out)["properties"]
    assert call("show-config") == 2


def test_compare_writes_tables_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", RUN, RUN / "evaluate" / "summary.json", "--output", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "compare.json", "compare.csv", "cases.csv", "compare.png"
    }  # fmt: skip
    (comparison,) = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["comparisons"]
    dice = comparison["structures"]["organ"]["dice"]
    assert dice["difference"]["mean"] == 0 and dice["ties"] == dice["n"] > 0, "a run equals itself"
    assert call("compare", RUN, "--output", tmp_path / "alone") == 2
    assert "two or more" in capsys.readouterr().err


def test_view_serves_the_run_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its scans are not needed to list the cases."""
    shutil.copytree(RUN, tmp_path / "run")
    seen: list[int] = []
    serve_forever = viewer_server.Viewer.serve_forever

    def answer_once(viewer: viewer_server.Viewer, *arguments: float) -> None:
        thread = threading.Thread(target=serve_forever, args=(viewer, *arguments), daemon=True)
        thread.start()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{viewer.server_address[1]}/", timeout=30)
        except urllib.error.HTTPError as refused:  # nothing is there without the token that it prints
            seen.append(refused.code)
        viewer.shutdown()

    monkeypatch.setattr(viewer_server.Viewer, "serve_forever", answer_once)
    assert call("view", tmp_path / "run", "--no-browser") == 0
    assert seen == [404] and "http://127.0.0.1:" in capsys.readouterr().out
    assert call("view", tmp_path, "--no-browser") == 2


def test_image_refuses_what_is_no_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call("image", tmp_path, "-t", "model:1"), capsys.readouterr().err
    assert (code == 2 and "no container engine works here" in said) or (code == 3 and str(tmp_path) in said)


def test_serve_refuses_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("serve", "--model", RUN / "package", "--device", "cuda:99") == 2
    assert "cuda:99" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_runs_every_stage_on_phantoms_that_it_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins = (
        "train.max_steps=2",
        "plan.patch_size=[16, 16, 16]",
        "train.network.channels=[4, 4, 4]",
        "executor.name=serial",
    )
    assert call("demo", "--out", tmp_path / "demo", *(word for pin in pins for word in ("--set", pin))) == 0
    assert "predict  segpipe predict --model" in capsys.readouterr().out
    assert all((tmp_path / "demo" / name / "stage.json").is_file() for name in STAGES)
    assert (tmp_path / "demo" / "phantoms" / "manifest.json").is_file()
