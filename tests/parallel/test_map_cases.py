"""Work per case: in order, with the same results in every executor, and a killed worker's case by name."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.machine import Runtime
from pipeline.parallel.map_cases import map_cases

POOL = Runtime(executor="process", workers=2)


@dataclass(frozen=True)
class Item:
    id: str
    folder: Path


def name_and_process(item: Item) -> tuple[str, int]:
    return item.id, os.getpid()


def die_in_case_two(item: Item) -> str:
    if item.id == "c2":
        os.kill(os.getpid(), signal.SIGKILL)
    return item.id


def die_once_in_case_two(item: Item) -> str:
    mark = item.folder / "died"
    if item.id == "c2" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item.id


def refuse_case_two(item: Item) -> str:
    if item.id == "c2":
        raise DataError("c2: is odd")
    return item.id


def items(folder: Path, count: int = 5) -> list[Item]:
    return [Item(f"c{i}", folder) for i in range(count)]


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_results_come_in_order(executor: str, tmp_path: Path) -> None:
    results = list(map_cases(name_and_process, items(tmp_path, 7), Runtime(executor=executor, workers=2), "x"))
    assert [name for name, _ in results] == [f"c{i}" for i in range(7)]
    assert ({process for _, process in results} == {os.getpid()}) is (executor == "serial")


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count: int, tmp_path: Path) -> None:
    assert len(list(map_cases(name_and_process, items(tmp_path, count), POOL, "x"))) == count


def test_the_case_whose_process_is_killed_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"the process that worked on case c2 was killed, most likely for want of memory"
    ):
        list(map_cases(die_in_case_two, items(tmp_path), POOL, "x"))


def test_a_result_can_stand_for_the_case_whose_process_is_killed(tmp_path: Path) -> None:
    results = list(map_cases(die_in_case_two, items(tmp_path), POOL, "x", killed=lambda item: f"not {item.id}"))
    assert results == ["c0", "c1", "not c2", "c3", "c4"]


def test_a_killed_worker_alone_does_not_end_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(map_cases(die_once_in_case_two, items(tmp_path), POOL, "x")) == [f"c{i}" for i in range(5)]
    assert "going on one case at a time" in caplog.text


class Crowded:
    """A call that finds too little memory while another is running: each marks itself in its item's folder."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises

    def __call__(self, item: Item) -> str:
        mark = item.folder / f"{item.id}.running"
        mark.touch()
        try:
            if item.id == "c1":
                _eventually(lambda: len(list(item.folder.glob("*.running"))) > 1 or (item.folder / "c1.tried").exists())
                crowded = len(list(item.folder.glob("*.running"))) > 1
                (item.folder / "c1.tried").touch()
                if crowded and self.raises:
                    raise MemoryError
                return "no room" if crowded else item.id
            if item.id == "c2":
                _eventually((item.folder / "c1.tried").exists)
            return item.id
        finally:
            mark.unlink()


@pytest.mark.parametrize("raises", [True, False])
def test_what_lacks_memory_beside_others_is_tried_alone(raises: bool, tmp_path: Path) -> None:
    results = list(map_cases(Crowded(raises), items(tmp_path), POOL, "x", out_of_memory="no room".__eq__))
    assert results == [f"c{i}" for i in range(5)]


def lack_memory(item: Item) -> str:
    if item.id == "c2":
        raise MemoryError(f"{item.id} is large")
    return item.id


def test_what_lacks_memory_alone_too_is_raised(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="c2 is large"):
        list(map_cases(lack_memory, items(tmp_path), POOL, "x"))


def report_lack_of_memory(item: Item) -> str:
    with (item.folder / f"{item.id}.calls").open("a") as calls:
        calls.write("x")
    return "no room" if item.id in {"c1", "c3"} else item.id


def test_what_reports_lack_of_memory_twice_keeps_its_result_and_place(tmp_path: Path) -> None:
    results = list(map_cases(report_lack_of_memory, items(tmp_path), POOL, "x", out_of_memory="no room".__eq__))
    assert results == ["c0", "no room", "c2", "no room", "c4"]
    assert [len((tmp_path / f"c{i}.calls").read_text()) for i in range(5)] == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("runtime", [Runtime(executor="serial"), POOL])
def test_an_error_of_a_call_is_raised(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="c2: is odd"):
        list(map_cases(refuse_case_two, items(tmp_path), runtime, "x"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    function: Callable = name_and_process
    with pytest.raises(ConfigError, match=r"executor\.name: ray needs ray, .* pip install 'segpipe\[ray\]'"):
        list(map_cases(function, items(tmp_path), Runtime(executor="ray"), "x"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_gives_the_same_results_and_errors(tmp_path: Path) -> None:
    runtime = Runtime(executor="ray")
    results = list(map_cases(name_and_process, items(tmp_path, 7), runtime, "x"))
    assert [name for name, _ in results] == [f"c{i}" for i in range(7)]
    assert os.getpid() not in {process for _, process in results}
    with pytest.raises(DataError, match="c2: is odd"):
        list(map_cases(refuse_case_two, items(tmp_path), runtime, "x"))
    with pytest.raises(DataError, match="the process that worked on case c2 was killed"):
        list(map_cases(die_in_case_two, items(tmp_path), runtime, "x"))


def wait_long(item: Item) -> None:
    (item.folder / f"{os.getpid()}.pid").touch()
    time.sleep(120)


def test_killing_the_command_ends_its_workers(tmp_path: Path) -> None:
    program = f"""
        from pathlib import Path
        from tests.parallel.test_map_cases import POOL, items, wait_long
        from pipeline.parallel.map_cases import map_cases
        if __name__ == "__main__":
            list(map_cases(wait_long, items(Path({str(tmp_path)!r}), 2), POOL, "x"))
    """
    script = tmp_path / "work.py"
    script.write_text(textwrap.dedent(program))
    root = Path(__file__).parents[2]
    command = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    workers = _eventually(lambda: len(found := list(tmp_path.glob("*.pid"))) == 2 and [int(p.stem) for p in found])
    command.kill()
    command.wait()
    assert _eventually(lambda: not any(psutil.pid_exists(worker) for worker in workers))


def _eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
