"""Requests across versions: what enters them, and what an older record is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pipeline.base.execute_stage import execute
from pipeline.base.machine import Runtime
from pipeline.base.stage import Stage
from pipeline.base.stage_cache import differences, recorded_request, request_of, staleness_reason
from pipeline.base.strict_model import Absent, StrictModel


class Loss(StrictModel):
    name: Literal["loss"] = "loss"


class ImprovedLoss(StrictModel):
    """A loss whose results changed once."""

    entry_version: ClassVar[int] = 2
    name: Literal["loss"] = "loss"


class Settings(StrictModel):
    losses: tuple[Loss, ...] = (Loss(),)


class LaterSettings(StrictModel):
    losses: tuple[ImprovedLoss, ...] = (ImprovedLoss(),)


class GrownSettings(Settings):
    overlap: Annotated[float, Absent(0.5)] = 0.25


def _write(config: StrictModel, inputs: object, out: Path, runtime: Runtime) -> None:
    (out / "a.txt").write_text("a", encoding="utf-8")


def stage(config: type[StrictModel]) -> Stage:
    return Stage(name="s", version=1, config=config, reads={}, inputs=(), outputs=("a.txt",), run=_write)


def reason(config: StrictModel, folder: Path) -> str | None:
    of = stage(type(config))
    return staleness_reason(of, request_of(of, config, {}), folder)


def test_an_entry_of_a_table_makes_stale_only_who_uses_it_and_only_above_version_1(tmp_path: Path) -> None:
    execute(stage(Settings), Settings(), {}, tmp_path / "s", Runtime())
    assert reason(Settings(), tmp_path / "s") is None
    assert "entry_versions" not in request_of(stage(Settings), Settings(), {})
    assert reason(LaterSettings(), tmp_path / "s") == "changed: entry_versions"
    assert reason(LaterSettings(losses=()), tmp_path / "s") == "changed: losses", "the entry is not used"


def test_a_later_key_counts_as_it_is_declared_and_at_another_value_it_is_named(tmp_path: Path) -> None:
    execute(stage(Settings), Settings(), {}, tmp_path / "s", Runtime())
    assert reason(GrownSettings(overlap=0.5), tmp_path / "s") is None
    assert reason(GrownSettings(), tmp_path / "s") == "changed: overlap"


def test_a_request_of_today_reads_back_as_itself() -> None:
    request = request_of(stage(GrownSettings), GrownSettings(), {})
    assert recorded_request(stage(GrownSettings), request) == request


def test_differences_are_named_by_their_key_paths() -> None:
    old, new = {"config": {"a": {"b": 1, "c": 2}}, "version": 1}, {"config": {"a": {"b": 1, "c": 3}}, "version": 2}
    assert differences(old, new) == ["a.c", "version"]
