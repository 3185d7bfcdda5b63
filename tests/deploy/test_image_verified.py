"""`docker/verify.sh`, as far as it comes without an engine: what it asks pip for, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from packaging import tags

# Stands for Python: makes the one file that verify.sh looks for, and notes what pip is asked for.
PYTHON = """#!/bin/sh
case "$*" in
  *as_kind.py*) touch "$3/scan$4" ;;
  *"pip download"*) printf '%s\\n' "$@" >>"$NOTES"; echo "no matching wheel" >&2; exit 1 ;;
esac
"""


def verify(repository: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """verify.sh with that Python, a package and a scan."""
    for name in ("package", "scans"):
        (folder / name).mkdir()
    (folder / "scans" / "scan.nii.gz").touch()
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    given = {"PYTHON": str(folder / "python"), "NOTES": str(folder / "notes"), "SEGPIPE_PYTHON_IMAGE": "any:1"}
    environment = {"PATH": os.environ["PATH"], **given, **environment}
    command = [repository / "docker" / "verify.sh", *arguments, folder / "package", folder / "scans"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_pip_is_asked_for_every_wheel_that_the_base_can_run(repository: Path, tmp_path: Path) -> None:
    """pip takes `--platform` to the letter: manylinux_2_28 alone, or a list with gaps, hides wheels of an older glibc
    (nvidia-nccl's are manylinux_2_18), and the lock's version then seems not to exist."""
    of_the_base = {platform for platform in tags.platform_tags() if platform.startswith("manylinux")}
    if not any(platform.endswith("x86_64") for platform in of_the_base):
        pytest.skip("this machine's wheels are of another kind than the images'")
    done = verify(repository, tmp_path, "--engine", "docker", "--base", "cuda")
    assert done.returncode == 1
    assert "no matching wheel" in done.stdout and "the wheels of build.lock could not be downloaded" in done.stderr
    asked = (tmp_path / "notes").read_text().splitlines()
    platforms = {word for flag, word in pairwise(asked) if flag == "--platform"}
    newer = {platform for platform in of_the_base if "_2_" in platform and int(platform.split("_")[2]) > 28}
    assert of_the_base - newer <= platforms
    assert "https://download.pytorch.org/whl/cpu" not in asked  # which has nothing of this variant's


def test_a_variant_that_does_not_exist_is_named_before_any_work(repository: Path, tmp_path: Path) -> None:
    done = verify(repository, tmp_path, "--engine", "docker", "--base", "gpu")
    assert (done.returncode, done.stdout) == (2, "") and "cpu, cuda or slim, not gpu" in done.stderr


def test_no_engine_is_said_with_what_to_install(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("sh", "dirname", "mktemp", "rm"):
        where = shutil.which(program)
        assert where is not None, program
        (tmp_path / "bin" / program).symlink_to(where)
    done = verify(repository, tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 1 and "no container engine works here: install docker, podman or buildah" in done.stderr
