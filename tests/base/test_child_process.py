"""A child's messages arrive whole, whatever libraries print, and no child outlives its parent; with real processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.child_process import (
    child_command,
    child_environment,
    child_options,
    decode_message,
    describe_ending,
    encode_message,
    read_messages,
    repeat_log_line,
    send_message,
    start_child,
)
from tests.base.echo_child import LONG, NOISE

ECHO = child_command("tests.base.echo_child")
ANY_TEXT = st.text(st.characters())  # U+2028, NUL and the like included
AWKWARD = [
    "Größe 大きさ 🩻",
    "first\nsecond\r\nthird\u2028fourth\x00\x1c\x85",
    os.fsdecode(b"scan_\xff.nii.gz"),  # a file name that is not UTF-8
    "ж" * 3_000_000,
    {"nested": [1.5, None, True, {"infinite": float("inf")}]},
]


@contextmanager
def running(request: dict[str, Any], output: IO[Any] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    child = start_child(ECHO, request, {}, output)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@given(st.recursive(ANY_TEXT | st.integers() | st.none(), lambda inner: st.dictionaries(ANY_TEXT, inner)))
def test_a_message_is_one_line_and_comes_back_unchanged(content):
    line = encode_message({"content": content})
    assert line.index(b"\n") == len(line) - 1
    assert decode_message(line) == {"content": content}


def test_a_line_that_is_cut_anywhere_is_no_message():
    line = encode_message({"a": {"b": [1, 2]}})
    assert [decode_message(line[:end]) for end in range(len(line))] == [None] * len(line)


@pytest.mark.parametrize("content", AWKWARD, ids=["unicode", "line ends", "undecodable", "large", "nested"])
def test_any_content_survives_the_way_there_and_back(content):
    with running({"first": content}) as child:
        send_message(child.stdin, {"second": content})
        answers = read_messages(child.stdout)
        assert [next(answers)["echo"], next(answers)["echo"]] == [{"first": content}, {"second": content}]


def test_what_libraries_print_goes_to_standard_error_and_not_among_the_answers(capfd):
    with running({"exit_code": 0}) as child:
        lines = child.stdout.read().splitlines()
        assert child.wait() == 0
    assert [json.loads(line)["echo"] for line in lines] == [{"exit_code": 0}]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [printed.err.count(noise) for noise in NOISE] == [2, 2, 2]  # before and after the answer


def test_a_child_with_a_file_for_its_output_prints_all_there(tmp_path):
    program = "import os, sys; os.write(1, sys.stdin.buffer.readline()); os.write(2, b'an error')"
    with (tmp_path / "log.txt").open("a", encoding="utf-8") as output:
        child = start_child([sys.executable, "-c", program], {"fold": 0}, {}, output)
    assert child.wait() == 0
    child.stdin.close()
    assert (tmp_path / "log.txt").read_bytes() == encode_message({"fold": 0}) + b"an error"


def test_log_lines_of_many_threads_arrive_whole_with_their_level_and_those_of_libraries_do_not(caplog):
    with running({"threads": 8, "exit_code": 0}) as child:
        for message in read_messages(child.stdout):
            if "log" in message:
                repeat_log_line(message, logging.getLogger("pipeline.parent"))
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert sorted(caplog.messages) == sorted(f"{thread} {line} {LONG}" for thread in range(8) for line in range(8))


@pytest.mark.parametrize(
    ("signum", "ending"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), most likely for want of memory \(\d+\.\d GiB are free now\)"),
        (signal.SIGTERM, "was ended by SIGTERM"),
        (signal.SIGSEGV, "was ended by SIGSEGV"),
    ],
)
def test_a_child_that_a_signal_ended_is_told_from_others(signum, ending):
    with running({"is_endless": True}) as child:
        next(read_messages(child.stdout))
        child.send_signal(signum)
        assert re.fullmatch(ending, describe_ending(child.wait()))


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_child_that_ended_by_itself_is_told_by_its_exit_code(exit_code):
    with running({"exit_code": exit_code}) as child:
        assert describe_ending(child.wait()) == f"ended with {exit_code}"


def test_an_answer_that_the_end_of_the_child_cut_short_is_none():
    with running({"is_cut_short": True}) as child:
        assert [message["echo"] for message in read_messages(child.stdout)] == [{"is_cut_short": True}]
        assert child.wait() == -signal.SIGKILL


def test_a_child_that_ends_before_it_reads_its_request_is_told_by_its_exit_code_only():
    child = start_child([sys.executable, "-c", "raise SystemExit(5)"], {"large": "x" * 2**20}, {})
    assert list(read_messages(child.stdout)) == []
    assert child.wait() == 5
    child.stdout.close()


PARENT = """
import sys
from pipeline.base.child_process import child_command, read_messages, start_child
idle = start_child(child_command("tests.base.echo_child"), {}, {})
busy = start_child(child_command("tests.base.echo_child"), {"is_endless": True}, {})
saving = start_child(child_command("tests.base.echo_child", sys.argv[1]), {"is_endless": True}, {})
for child in (idle, busy, saving):
    print(next(read_messages(child.stdout))["pid"], flush=True)
sys.stdin.read()
"""


def test_children_end_when_their_parent_is_killed_idle_or_busy_and_may_save_before(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "state")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=child_environment(), **pipes) as parent:
        children = [psutil.Process(int(parent.stdout.readline())) for _ in range(3)]
        assert all(is_alive(child) for child in children)
        assert not (tmp_path / "state").exists()
        parent.kill()
    try:
        eventually(lambda: not any(is_alive(child) for child in children))
    finally:
        for child in filter(is_alive, children):
            child.kill()
    assert (tmp_path / "state").read_text(encoding="utf-8") == "saved"


def test_asyncio_talks_to_the_same_child():
    async def talk() -> list[Any]:
        child = await asyncio.create_subprocess_exec(*ECHO, **child_options({}))
        child.stdin.write(encode_message({"number": 1}))
        first = decode_message(await child.stdout.readline())
        child.kill()
        return [first["echo"], decode_message(await child.stdout.readline()), await child.wait()]

    assert asyncio.run(talk()) == [{"number": 1}, None, -signal.SIGKILL]


def test_a_child_imports_nothing_from_the_current_folder_and_has_the_variables_that_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEPT", "of the parent")
    with running({"exit_code": 0}) as child:
        assert next(read_messages(child.stdout))["echo"] == {"exit_code": 0}
    program = "import os; print(os.environ['KEPT'], os.environ['GIVEN'])"
    child = start_child([sys.executable, "-c", program], {}, {"GIVEN": "for the child"})
    assert child.communicate()[0] == b"of the parent for the child\n"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)
