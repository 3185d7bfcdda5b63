"""A third of a CT of 512×512×600 voxels is read and checked in under a third of 3 GB, the program included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (512, 512, 200)
PROGRAM = """
import sys
from pathlib import Path
from pipeline.base.machine import Runtime
from pipeline.dataset.manifest import Manifest
from pipeline.dataset.checks.check_dataset import find_faults

case = {"id": "large", "images": ["image.nii"], "label": "label.nii"}
channels = [{"name": "CT", "modality": "CT"}]
manifest = Manifest.model_validate({"name": "large", "channels": channels, "labels": {"body": 1}, "cases": [case]})
assert find_faults(manifest, Path(sys.argv[1]), Runtime(executor="serial")) == ()
# getrusage's figure begins with what the process had that started this one.
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024)
"""


@pytest.mark.slow
def test_a_large_case_is_checked_in_little_memory(tmp_path: Path) -> None:
    for name, dtype, background in (("image.nii", np.int16, -1000), ("label.nii", np.uint8, 0)):
        header = nib.Nifti1Header()
        header.set_data_shape(SHAPE)
        header.set_data_dtype(dtype)
        header.set_sform(np.diag([0.7, 0.7, 1.0, 1.0]), 1)
        with (tmp_path / name).open("wb") as stream:
            header.write_to(stream)
        voxels = np.memmap(tmp_path / name, dtype, "r+", 352, SHAPE, order="F")
        voxels[:] = background
        voxels[100:400, 100:400, 50:150] = 1
        voxels.flush()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1e9
    assert int(result.stdout) > np.prod(SHAPE) * 4  # it did hold the image
