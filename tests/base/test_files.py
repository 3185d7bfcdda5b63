"""A file is there whole or not at all, however its writing ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pipeline.base.files import atomic_write

KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
from pipeline.base.files import atomic_write
def half(temporary):
    temporary.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(pathlib.Path(sys.argv[1]), half)
"""


def test_a_fault_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"old")

    def half(temporary):
        temporary.write_bytes(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path, repository):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    beside = [entry.name for entry in tmp_path.iterdir() if entry != path]
    assert all(name.startswith(".") for name in beside)  # which nothing of ours takes for a scan
