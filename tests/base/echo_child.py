"""Child process for the tests of `child_process`: it sends each request back, in the midst of what libraries print.

Some requests ask for more: to log from threads, to work without an end, to end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from pipeline.base.child_process import LogToParent, exit_at_once, read_requests, send_message, take_over_stdout

NOISE = ("print of Python", "print of a C library", "print of a program")
LONG = "ä" * 20_000
"""Longer than a pipe takes at once."""


def make_noise() -> None:
    print(NOISE[0])
    os.write(1, f"{NOISE[1]}\n".encode())
    subprocess.run(["echo", NOISE[2]], check=True)


def log_from_threads(count: int) -> None:
    def log(thread: int) -> None:
        for line in range(count):
            logging.getLogger("pipeline.child").warning("%d %d %s", thread, line, LONG)
            logging.getLogger("library").error("not of this program")

    threads = [Thread(target=log, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def save_and_exit() -> None:
    """Write the file that the command line names, as training writes its state, and end."""
    Path(sys.argv[1]).write_text("saved", encoding="utf-8")
    exit_at_once()


def main() -> None:
    stop: Callable[[], None] = save_and_exit if sys.argv[1:] else exit_at_once
    answers = take_over_stdout()
    logging.basicConfig(level=logging.INFO, handlers=[LogToParent(answers)])
    for request in read_requests(stop):
        make_noise()
        log_from_threads(request.get("threads", 0))
        send_message(answers, {"echo": request, "pid": os.getpid()})
        make_noise()
        while request.get("is_endless"):
            pass
        if "exit_code" in request:
            sys.exit(request["exit_code"])
        if request.get("is_cut_short"):
            answers.write(b'{"echo": "half a li')
            answers.flush()
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
