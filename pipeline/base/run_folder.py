"""Run folder: its lock against a second process, and its log file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pipeline.base.errors import ConfigError, SegpipeError


@contextlib.contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Holds the run folder's lock, which the kernel gives back however this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written: {error.strerror}; choose another with --out"
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another process works in {folder}; wait for it, or give this run a folder with --out"
            ) from None
        yield


@contextlib.contextmanager
def log_to_run_folder(folder: Path) -> Iterator[None]:
    """Everything that is logged goes to `log.txt` too."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    package_log = logging.getLogger("pipeline")
    package_log.addHandler(handler)
    _write(folder / "log.txt", f"\n{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} $ {' '.join(sys.argv)}")
    try:
        yield
    except SegpipeError as error:
        _write(folder / "log.txt", str(error))
        raise
    finally:
        package_log.removeHandler(handler)
        handler.close()


def _write(log_file: Path, line: str) -> None:
    with log_file.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
