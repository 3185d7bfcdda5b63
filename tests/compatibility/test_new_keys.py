"""A key that comes with a later version makes no finished run stale and throws no unfinished training away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, create_model

from pipeline import runner
from pipeline.base.stage import Stage
from pipeline.base.stage_cache import changed_since
from pipeline.base.strict_model import Absent, StrictModel
from pipeline.cli import main
from pipeline.config import PipelineConfig, load_config
from pipeline.stages.stage_table import STAGES

SECTIONS = {
    name: field.annotation
    for name, field in PipelineConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}


def extended(section: type[StrictModel], key: Any = (int, 7)) -> type[StrictModel]:
    """The same section with one key more."""
    return create_model(section.__name__, __base__=section, new_key=key)


@pytest.fixture
def later_version(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[StrictModel]]:
    """The program as it is after a new key came to each section of the configuration."""
    sections = {name: extended(section) for name, section in SECTIONS.items()}
    install(monkeypatch, sections)
    return sections


def install(monkeypatch: pytest.MonkeyPatch, sections: dict[str, type[StrictModel]]) -> None:
    fields: dict[str, Any] = {
        name: (section, ... if PipelineConfig.model_fields[name].is_required() else section())
        for name, section in sections.items()
    }
    later = create_model("PipelineConfig", __base__=PipelineConfig, **fields)
    # `pipeline.config.load_config` is the function; the module of that name is what has to be changed.
    monkeypatch.setitem(load_config.__globals__, "PipelineConfig", later)
    monkeypatch.setattr(runner, "STAGES", {name: of_later_version(stage, sections) for name, stage in STAGES.items()})


def of_later_version(stage: Stage, sections: dict[str, type[StrictModel]]) -> Stage:
    fields: dict[str, Any] = {
        name: (sections[stage.reads[name]], ...)
        for name, field in stage.config.model_fields.items()
        if field.annotation is SECTIONS.get(stage.reads[name])
    }
    return replace(stage, config=create_model(stage.config.__name__, __base__=stage.config, **fields))


def run(folder: Path, name: str, *arguments: str) -> int:
    return main(["run", str(folder / "config.yaml"), "--out", str(folder / name), *arguments])


def up_to_date(said: str) -> set[str]:
    return {name for name in STAGES if f"{name:<9} up to date" in said}


def test_every_section_of_a_stage_gets_the_new_key(later_version: dict[str, type[StrictModel]]) -> None:
    assert set(later_version) == {*STAGES, "data", "executor"}
    with_key = {
        field.annotation
        for stage in runner.STAGES.values()
        for field in stage.config.model_fields.values()
        if field.annotation in later_version.values()
    }
    assert with_key == {section for name, section in later_version.items() if name != "executor"}


@pytest.mark.usefixtures("later_version")
def test_a_finished_run_stays_up_to_date(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(old, "run") == 0
    assert up_to_date(capsys.readouterr().out) == set(STAGES)


@pytest.mark.usefixtures("later_version")
def test_a_half_trained_network_is_trained_on(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(old, "killed", "--only", "train") == 0
    assert "resumed at step 46" in capsys.readouterr().out


@pytest.mark.usefixtures("later_version")
@pytest.mark.parametrize("section", sorted(STAGES))
def test_the_new_key_at_another_value_runs_the_stage_again(section: str, old: Path) -> None:
    """The rule is about keys that are left alone; who sets one means it."""
    config = load_config(old / "config.yaml", [f"{section}.new_key=8"])
    stage = runner.STAGES[section]
    if section == "load":
        changed = stage.changed_since(runner.settings_for(stage, config), old / "run" / "load")
    else:
        changed = changed_since(stage, runner.settings_for(stage, config), old / "run")
    assert any("new_key" in key or key == section for key in changed), changed


def test_a_record_without_the_key_counts_as_what_the_key_declares(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new default is 7, but what was done before there was a key is what 3 means now."""
    sections = {**SECTIONS, "report": extended(SECTIONS["report"], (Annotated[int, Absent(3)], 7))}
    install(monkeypatch, sections)
    monkeypatch.chdir(old)  # the record of where the scans lie is relative
    assert run(old, "run", "--set", "report.new_key=3") == 0
    assert up_to_date(capsys.readouterr().out) == set(STAGES)
    assert run(old, "run") == 0
    said = capsys.readouterr().out
    assert up_to_date(said) == set(STAGES) - {"report"} and "report    runs again: changed: report.new_key" in said
