"""The package is a MONAI bundle too: MONAI's own tools run it and give the labels of `segpipe predict`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
import torch

from pipeline.serving.model import load_package
from pipeline.serving.predict import predict
from tests.serving.small_package import small_package

pytest.importorskip("fire")
pytest.importorskip("ignite")
pytestmark = pytest.mark.slow


def _monai(folder: Path, *arguments: str) -> None:
    files = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *arguments, *files],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_monai_runs_the_bundle_with_our_labels(segpipe_data: Path, tmp_path: Path) -> None:
    folder = small_package(tmp_path / "package", bundle=True)
    assert "models/model.pt" in load_package(folder).seal.files
    torch.load(folder / "models" / "model.pt", weights_only=True)
    scan = segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / scan.name).symlink_to(scan)
    predict(folder, scan, tmp_path / "ours", "cpu")
    _monai(folder, "run", "--dataset_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / "theirs"))
    ours, theirs = (nib.load(tmp_path / name / scan.name) for name in ("ours", "theirs"))
    assert (ours.get_fdata() == theirs.get_fdata()).mean() >= 0.999
    assert theirs.get_data_dtype() == "uint8"
    _monai(folder, "verify_net_in_out", "network_def")
