"""The slim image's way: prediction with neither torch nor MONAI, from ONNX exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from pipeline.deploy.predict import predict
from tests.packaging.small_package import small_package

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

PREDICT_WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {"torch", "monai"} else PathFinder.find_spec(name, path, target)

sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
from pipeline.deploy.predict import predict
(result,) = predict(*map(Path, sys.argv[1:4]), isolated=False)
assert (result.status, result.backend) == ("done", "onnx, cpu, fp32"), result.message
assert not {"torch", "monai", "scipy.ndimage", "SimpleITK"} & set(sys.modules)
assert "onnxruntime" in sys.modules
"""


@pytest.mark.slow
def test_labels_are_those_of_torch(segpipe_data: Path, tmp_path: Path) -> None:
    scan = segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"
    package = small_package(tmp_path / "package", seeds=(0, 1), scan=scan)
    predict(package, scan, tmp_path / "torch", "cpu")
    done = subprocess.run(
        [sys.executable, "-c", PREDICT_WITHOUT_TORCH, str(package), str(scan), str(tmp_path / "slim")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, other = (nib.load(tmp_path / name / scan.name).get_fdata() for name in ("torch", "slim"))
    assert (one == other).mean() >= 0.999
