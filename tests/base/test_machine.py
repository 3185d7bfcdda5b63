"""What a container lets this process have: its share of time and of memory, as the kernel's files say it."""

from __future__ import annotations

import os

import pytest

from pipeline.base import machine
from pipeline.base.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None), (None, None)],
)
def test_cores_by_the_limit_of_time(tmp_path, text, cores):
    """Whole ones, but one at least, and no more than this process may run on."""
    quota, here = tmp_path / "cpu.max", len(os.sched_getaffinity(0))
    if text is not None:
        quota.write_text(text)
    assert machine.usable_cores(quota) == min(cores or here, here)


def test_files_that_the_kernel_keeps_are_not_taken_memory(tmp_path):
    """Of 1000 bytes 900 are used, 650 of them by files that were read and can be dropped: 750 are left."""
    limit, used, statistics = files = [tmp_path / name for name in ("memory.max", "memory.current", "memory.stat")]

    def available():
        return machine.available_memory_gib([files]) * 2**30

    assert available() > 2**20  # the machine's
    limit.write_text("1000\n")
    used.write_text("900\n")
    statistics.write_text("anon 250\nfile 650\ninactive_file 600\nactive_file 50\n")
    assert available() == 750
    statistics.unlink()
    assert available() == 100
    limit.write_text("max\n")
    assert available() > 2**20


def test_the_tightest_of_several_limits_counts(tmp_path):
    """Those of version 1 and of version 2."""
    for name, limit in (("one", 5000), ("other", 3000)):
        (tmp_path / name).write_text(f"{limit}")
    (tmp_path / "used").write_text("1000")
    groups = [[tmp_path / name, tmp_path / "used", tmp_path / "absent"] for name in ("one", "other")]
    assert machine.available_memory_gib(groups) * 2**30 == 2000


@pytest.mark.parametrize("device", ["gpu", "cuda:one", "cpu:1", ""])
def test_what_is_no_device_is_refused_before_anything_starts(device):
    with pytest.raises(ConfigError, match=rf"{device!r} is not a device; allowed: auto, cuda, cuda:N, cpu"):
        machine.check_device(device)
    machine.check_device("auto")
    machine.check_device("cpu")
