"""The stage contract, with a stage small enough to see through: it writes the sum of its inputs and a number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.base.execute_stage import execute
from pipeline.base.machine import Runtime
from pipeline.base.stage import Stage, StageResult
from pipeline.base.stage_outputs import failed_cases, is_finished
from pipeline.base.strict_model import StrictModel


class Number(StrictModel):
    number: int = 1


def _stage(calls: list[str], name: str = "add", inputs: tuple[str, ...] = (), **more) -> Stage:
    def run(config, folders, out, runtime):
        calls.append(name)
        total = config.number + sum(
            json.loads((folders[i] / "sum.json").read_text(encoding="utf-8"))["sum"] for i in inputs
        )
        (out / "sum.json").write_text(json.dumps({"sum": total, "seconds": len(calls)}))
        (out / "notes.txt").write_text(f"call {len(calls)}")

    settings = {"not_hashed": {"sum.json": ("seconds",), "notes.txt": ()}, "outputs": ("sum.json",), **more}
    return Stage(name=name, version=1, config=Number, reads={}, inputs=inputs, run=settings.pop("run", run), **settings)


def _go(stage: Stage, root: Path, number: int = 1, **more) -> bool:
    inputs = {name: root / name for name in stage.inputs}
    return execute(stage, Number(number=number), inputs, root / stage.name, Runtime(), **more)


def test_the_second_run_does_nothing(tmp_path):
    calls: list[str] = []
    stage = _stage(calls)
    assert _go(stage, tmp_path) is True
    assert _go(stage, tmp_path) is False
    assert calls == ["add"]


def test_a_changed_key_runs_again_and_force_too(tmp_path):
    calls: list[str] = []
    stage = _stage(calls)
    _go(stage, tmp_path)
    assert _go(stage, tmp_path, number=2) is True
    assert json.loads((tmp_path / "add/sum.json").read_text(encoding="utf-8"))["sum"] == 2
    assert _go(stage, tmp_path, number=2, force=True) is True
    assert len(calls) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["add"]


@pytest.mark.parametrize(
    "harm", [lambda p: p.unlink(), lambda p: p.write_text('{"sum": 7}'), lambda p: p.write_text("{")]
)
def test_a_deleted_or_altered_output_is_noticed(tmp_path, harm):
    calls: list[str] = []
    stage = _stage(calls)
    _go(stage, tmp_path)
    harm(tmp_path / "add/sum.json")
    assert _go(stage, tmp_path) is True
    assert json.loads((tmp_path / "add/sum.json").read_text(encoding="utf-8"))["sum"] == 1


def test_seconds_enter_no_digest(tmp_path):
    """A forced first stage writes other seconds; the stage after it has nothing to do."""
    calls: list[str] = []
    first, second = _stage(calls, "first"), _stage(calls, "second", ("first",))
    _go(first, tmp_path), _go(second, tmp_path)
    _go(first, tmp_path, force=True)
    assert _go(second, tmp_path) is False
    assert _go(first, tmp_path, number=5) is True
    assert _go(second, tmp_path) is True
    assert json.loads((tmp_path / "second/sum.json").read_text(encoding="utf-8"))["sum"] == 6


def test_a_failing_stage_leaves_the_old_result(tmp_path):
    calls: list[str] = []
    _go(_stage(calls), tmp_path)

    def fail(config, folders, out, runtime):
        (out / "sum.json").write_text("half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        _go(_stage(calls, run=fail), tmp_path, number=2)
    assert json.loads((tmp_path / "add/sum.json").read_text(encoding="utf-8"))["sum"] == 1
    assert not is_finished(tmp_path / "add.partial")
    assert _go(_stage(calls), tmp_path) is False


def test_a_broken_promise_is_our_fault(tmp_path):
    with pytest.raises(AssertionError, match=r"promised \['sum.json'\]"):
        _go(_stage([], run=lambda *_: None), tmp_path)
    assert not (tmp_path / "add").exists()


def test_only_a_resuming_stage_with_an_equal_request_gets_its_unfinished_work_back(tmp_path):
    seen: list[bool] = []

    def stop_halfway(config, folders, out, runtime):
        seen.append((out / "half.txt").exists())
        (out / "half.txt").write_text("x")
        if len(seen) < 3:
            raise RuntimeError("interrupted")
        (out / "sum.json").write_text('{"sum": 0}')

    for number in (1, 2, 2):
        stage = _stage([], run=stop_halfway, resumes=True)
        if len(seen) < 2:
            with pytest.raises(RuntimeError):
                _go(stage, tmp_path, number=number)
        else:
            _go(stage, tmp_path, number=number)
    assert seen == [False, False, True]


def test_failed_cases_are_recorded_and_previous_results_kept_where_asked(tmp_path):
    def run(config, folders, out, runtime):
        (out / "sum.json").write_text(json.dumps({"sum": config.number}))
        return StageResult(failed_cases=("case_7",))

    stage = _stage([], run=run, keep_previous=True)
    _go(stage, tmp_path)
    assert failed_cases(tmp_path / "add") == ["case_7"]
    _go(stage, tmp_path, number=2)
    assert json.loads((tmp_path / "add.previous/sum.json").read_text(encoding="utf-8"))["sum"] == 1


def test_kill_9_leaves_nothing_that_looks_finished_and_the_next_run_goes_on(tmp_path):
    program = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from tests.base.test_stage import Number, _stage, _go
        def slow(config, folders, out, runtime):
            (out / "sum.json").write_text('{{"sum": 1}}')
            print("written", flush=True)
            time.sleep(60)
        _go(_stage([], run=slow), Path({str(tmp_path)!r}))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout.readline() == b"written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "add").exists()
    assert not is_finished(tmp_path / "add.partial")
    calls: list[str] = []
    assert _go(_stage(calls), tmp_path) is True
    assert calls == ["add"] and not (tmp_path / "add.partial").exists()


def test_killed_between_record_and_rename_is_finished_by_the_next_run(tmp_path):
    calls: list[str] = []
    _go(_stage(calls), tmp_path)
    (tmp_path / "add").rename(tmp_path / "add.partial")
    assert _go(_stage(calls), tmp_path) is False
    assert is_finished(tmp_path / "add") and calls == ["add"]


def test_unfinished_work_of_another_request_is_kept_aside_where_results_are(tmp_path, caplog):
    def stop(config, folders, out, runtime):
        (out / "half.txt").write_text(str(config.number))
        raise RuntimeError("interrupted")

    stage = _stage([], run=stop, resumes=True, keep_previous=True)
    for number in (1, 2):
        with pytest.raises(RuntimeError), caplog.at_level("INFO", "pipeline"):
            _go(stage, tmp_path, number=number)
    assert (tmp_path / "add.partial.previous/half.txt").read_text() == "1"
    assert (tmp_path / "add.partial/half.txt").read_text() == "2"
    assert "begins anew (number); the unfinished work is kept in add.partial.previous" in caplog.text


def test_a_key_that_changes_no_result_runs_nothing_again(tmp_path):
    calls: list[str] = []
    stage = _stage(calls, ignored_keys=("number",))
    assert _go(stage, tmp_path, number=1) is True
    assert _go(stage, tmp_path, number=2) is False
    assert calls == ["add"]


def test_records_from_before_a_key_was_ignored_still_stand(tmp_path):
    """They hold the key, and folders that are finished are not computed again for it."""
    calls: list[str] = []
    assert _go(_stage(calls), tmp_path, number=1) is True
    assert _go(_stage(calls, ignored_keys=("number",)), tmp_path, number=2) is False
    assert calls == ["add"]
