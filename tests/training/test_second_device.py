"""A store in the memory of the device that trains gives the batches, and the training, of one in the CPU's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.prepared_store import prepare


@pytest.mark.slow
@pytest.mark.parametrize("planned", [{}, {"overlapping": True}], ids=["exclusive", "overlapping"])
def test_a_store_on_the_device_that_trains(planned: dict, repository: Path, tmp_path: Path) -> None:
    prepare(tmp_path, **planned)
    command = [sys.executable, "-m", "tests.training.on_second_device", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mixing_is_refused"]
    assert found["where"] == ["memory", "GPU memory"]
    assert found["devices"] == [["cpu"], ["second:0"]]
    assert found["operations_while_drawing"][0] == 0 and found["operations_while_drawing"][1] > 100
    # Two devices look up places with other operations of torch, equal but for rounding; all else is the same.
    assert found["image_difference"] < 1e-3 * found["image_deviation"]
    assert found["labels_equal"] > 0.9999 and len(found["labels"]) > 2
    assert found["weights_equal"] and found["dice"][0] == found["dice"][1]
