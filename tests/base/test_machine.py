"""What a container lets this process have: its share of time and of memory, as the kernel's files say it."""

from __future__ import annotations

import pytest

from pipeline.base import machine
from pipeline.base.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)],
)
def test_cores_by_the_limit_of_time(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert machine._cores_of_quota(tmp_path / "cpu.max") == cores
    assert machine._cores_of_quota(tmp_path / "absent") is None


def test_files_that_the_kernel_keeps_are_not_taken_memory(tmp_path):
    """Of 1000 bytes 900 are used, 650 of them by files that were read and can be dropped: 750 are left."""
    limit, used, statistics = (tmp_path / name for name in ("memory.max", "memory.current", "memory.stat"))
    limit.write_text("1000\n")
    used.write_text("900\n")
    statistics.write_text("anon 250\nfile 650\ninactive_file 600\nactive_file 50\n")
    assert machine._free_of_cgroup(limit, used, statistics) == 750
    statistics.unlink()
    assert machine._free_of_cgroup(limit, used, statistics) == 100
    limit.write_text("max\n")
    assert machine._free_of_cgroup(limit, used, statistics) is None


@pytest.mark.parametrize("device", ["gpu", "cuda:one", "cpu:1", ""])
def test_what_is_no_device_is_refused_before_anything_starts(device):
    with pytest.raises(ConfigError, match=rf"{device!r} is not a device; allowed: auto, cuda, cuda:N, cpu"):
        machine.check_device(device)
    machine.check_device("auto")
    machine.check_device("cpu")
