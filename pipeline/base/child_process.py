"""Child processes of this program: their start, their messages as lines of JSON, their end.

The parent starts a child with `start_child` (or, in asyncio, with `child_options`) and writes requests to its standard
input. The child reads them with `read_requests`. If it answers, it does so on the stream of `take_over_stdout`.

The parent keeps the child's standard input open for as long as it lives. The end of that pipe tells the child that the
parent is gone, however it went: even after a SIGKILL, no child is left behind.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from pipeline.base.machine import available_memory_gib

_STDIN, _STDOUT, _STDERR = 0, 1, 2


# Messages


def encode_message(content: Mapping[str, Any]) -> bytes:
    """Return `content` as one line of JSON, in ASCII: no locale and no character in it can break the line."""
    return json.dumps(content).encode("ascii") + b"\n"


def decode_message(line: bytes) -> dict[str, Any] | None:
    """Return the message of a line; None for an empty line, and for one that the end of its writer cut short."""
    return dict(json.loads(line)) if line.endswith(b"\n") else None


def send_message(stream: IO[bytes], content: Mapping[str, Any]) -> None:
    """Write a message at once and in one piece: threads may share the stream."""
    stream.write(encode_message(content))
    stream.flush()


def read_messages(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each message as soon as it is there, until the lines end."""
    for line in lines:
        if (message := decode_message(line)) is not None:
            yield message


# The parent's side


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this program in another process."""
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: nothing is imported from the current folder


def child_environment() -> dict[str, str]:
    """Return the environment in which another process finds this program where this process found it."""
    source = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))}


def child_options(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `subprocess.Popen` and `asyncio.create_subprocess_exec` that start a child.

    The child has a session of its own: Ctrl-C reaches the parent alone, which decides what becomes of the child.

    Args:
        variables: environment variables that the child has in addition.
    """
    return {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "start_new_session": True,
        "env": {**child_environment(), **variables},
    }


def start_child(
    command: Sequence[str],
    request: Mapping[str, Any],
    variables: Mapping[str, str],
    output: IO[Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child and send it its first request. A child that ends before it reads the request raises nothing here.

    Args:
        command: see `child_command`.
        request: the first message to the child.
        variables: environment variables that the child has in addition.
        output: a file for all that the child prints. None: its standard output is a pipe for its answers.
    """
    options = child_options(variables)
    if output is not None:
        options |= {"stdout": output, "stderr": subprocess.STDOUT}
    child: subprocess.Popen[bytes] = subprocess.Popen(command, **options)  # noqa: S603, our own module
    if child.stdin is None:
        raise AssertionError("the child was started with a pipe")
    try:
        send_message(child.stdin, request)
    except BrokenPipeError:  # the exit code will tell the caller what became of the child
        with suppress(BrokenPipeError):
            child.stdin.close()
    return child


def describe_ending(exit_code: int) -> str:
    """Return how a child ended: a predicate such as "was killed (SIGKILL), ..." or "ended with 3"."""
    if exit_code >= 0:
        return f"ended with {exit_code}"
    name = signal.Signals(-exit_code).name
    if -exit_code == signal.SIGKILL:
        return f"was killed ({name}), most likely for want of memory ({available_memory_gib():.1f} GiB are free now)"
    return f"was ended by {name}"


def repeat_log_line(message: Mapping[str, Any], log: logging.Logger) -> None:
    """Log a line that the child's `LogToParent` sent."""
    log.log(message["level"], "%s", message["log"])


# The child's side


def take_over_stdout() -> IO[bytes]:
    """Return the stream for answers to the parent. What libraries print goes to standard error from now on."""
    answers = os.fdopen(os.dup(_STDOUT), "wb")
    os.dup2(_STDERR, _STDOUT)
    return answers


def exit_at_once() -> None:
    """End this process without any cleaning up."""
    os._exit(1)


def read_requests(stop: Callable[[], object] = exit_at_once) -> Iterator[dict[str, Any]]:
    """Return the parent's messages, each as soon as it is there, and from now on call `stop` if the parent exits."""
    lines = SimpleQueue[bytes]()
    stop_when_parent_exits(stop, receive=lines.put)
    return read_messages(iter(lines.get, None))


def stop_when_parent_exits(
    stop: Callable[[], object] = exit_at_once,
    pipe: int = _STDIN,
    receive: Callable[[bytes], object] = lambda line: None,  # noqa: ARG005
) -> None:
    """Call `stop` in another thread once the parent is gone, however it went.

    Args:
        stop: ends this process, at once or in its own time.
        pipe: a file descriptor whose other end only the parent holds open.
        receive: is given every line that comes through the pipe before.
    """
    Thread(target=partial(_watch, stop, pipe, receive), daemon=True).start()


def _watch(stop: Callable[[], object], pipe: int, receive: Callable[[bytes], object]) -> None:
    with open(pipe, "rb", closefd=False) as lines:
        for line in lines:
            receive(line)
    stop()


class LogToParent(logging.Handler):
    """Log handler that sends this program's lines, but no library's, to the parent."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self.answers = answers
        self.addFilter(lambda record: record.name.startswith("pipeline"))

    def emit(self, record: logging.LogRecord) -> None:
        send_message(self.answers, {"log": record.getMessage(), "level": record.levelno})
