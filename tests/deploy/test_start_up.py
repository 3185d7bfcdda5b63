"""What prediction imports, since that is what its start takes: nothing that is not needed before a scan is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.packaging.finished_stages import package_of_stages
from tests.packaging.small_package import small_package

NEVER = {"monai", "SimpleITK", "matplotlib", "tensorboard", "pandas", "fastapi", "highdicom"}
"""Whatever computes the windows."""

LISTED = """
import sys
from pathlib import Path
import pipeline.deploy.container_entrypoint, pipeline.deploy.result_tables
import pipeline.deploy.predict
from pipeline.deploy.list_scans import list_scans
from pipeline.packaging.model_package import load_package
package = load_package(Path(sys.argv[1]))
assert len(list_scans(Path(sys.argv[2]), [channel.name for channel in package.plan.channels])) == 2
print(" ".join(sys.modules))
"""

PREPARED = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
import pipeline.inference.backends.onnx_backend, pipeline.inference.build_predictors
import pipeline.inference.domain_check, pipeline.inference.segment_in_subprocess
from pipeline.io.read_image import read_image
from pipeline.inference.predictor import Predictor
from pipeline.packaging.model_package import load_package
plan = load_package(Path(sys.argv[1])).plan
prepared = Predictor(plan, model=None).prepare(read_image([Path(sys.argv[2]) / "scan.mha"]))
assert prepared.conformed.image.any()
print(" ".join(sys.modules))
"""

PREDICTED = """
import sys
from pathlib import Path
from pipeline.deploy.predict import predict
(result,) = predict(Path(sys.argv[1]), Path(sys.argv[2]) / "scan.mha", Path(sys.argv[2]) / "out", "cpu", isolated=False)
assert result.status == "done", result.message
print(" ".join(sys.modules))
"""


def _imported(program: str, package: Path, scans: Path) -> set[str]:
    """The modules in a fresh process after `program`."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(package), str(scans)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_of_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A .mha on another grid than the planned one, and the name of a NIfTI file."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).uniform(0, 100, (20, 40, 40)).astype(np.float32))
    image.SetSpacing([1, 1, 2])
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    (tmp_path / "other.nii.gz").touch()
    return tmp_path


def test_opening_a_package_and_listing_scans_imports_numpy_and_pydantic_at_most(package: Path, scans: Path) -> None:
    """The process that the container starts with only does this: another one segments."""
    heavy = NEVER | {"torch", "onnxruntime", "scipy", "nibabel", "pydicom", "PIL", "requests", "rich", "urllib3"}
    assert not heavy & _imported(LISTED, package, scans)


def test_all_up_to_the_first_window_imports_neither_torch_nor_scipy(package: Path, scans: Path) -> None:
    """From ONNX Runtime's import over a scan's voxels to the grid that the network sees."""
    pytest.importorskip("onnxruntime")
    imported = _imported(PREPARED, package, scans)
    assert "onnxruntime" in imported
    assert not (NEVER | {"torch", "scipy.ndimage", "rich"}) & imported  # nibabel looks for scipy itself


@pytest.mark.slow
def test_a_package_is_segmented_with_torch_but_without_the_rest_of_monai(scans: Path, tmp_path: Path) -> None:
    imported = _imported(PREDICTED, small_package(tmp_path / "package"), scans)
    assert "torch" in imported
    assert not NEVER & imported
