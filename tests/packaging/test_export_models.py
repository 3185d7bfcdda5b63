"""Exports give torch's labels on a real case, or are not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import SegpipeError
from pipeline.base.files import read_json
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.io.read_image import read_image
from pipeline.packaging.export_models import READERS, WRITERS, export
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SETTINGS = PredictorConfig(roi_size=(24, 32, 16))


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "openvino"])
def test_an_ensemble_is_exported_and_gives_the_same_labels(kind, segpipe_data: Path, tmp_path: Path) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    package = load_package(small_package(tmp_path / "package", seeds=(0, 1)))
    image = read_image([segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"])
    exported = export(kind, package.plan, package.weights, image, tmp_path / "exports", SETTINGS)
    assert exported.share >= 0.9999
    files, endings = exported.files, {"onnx": {".onnx"}, "torchscript": {".ts"}, "openvino": {".xml", ".bin"}}
    assert [file.stem for file in files] == ["fold_0", "fold_1"]
    assert {path.suffix for path in (tmp_path / "exports").iterdir()} == endings[kind]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "exports").iterdir())
    windows = np.random.default_rng(0).normal(size=(3, 1, 24, 32, 16)).astype(np.float32)
    reader = READERS[kind](files)
    with reader.inference_context():
        logits = np.asarray(reader(windows))
    assert logits.shape == (3, 3, 24, 32, 16)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "openvino"])
def test_an_export_that_differs_is_not_written(kind, segpipe_data: Path, tmp_path: Path) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    package = load_package(small_package(tmp_path / "package"))
    image = read_image([segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"])
    write = WRITERS[kind]

    def write_another(network, example, path):
        for parameter in network.parameters():
            parameter.data.mul_(-1)
        write(network, example, path)
        for parameter in network.parameters():
            parameter.data.mul_(-1)

    with pytest.raises(SegpipeError, match=r"only \d+\.\d+% of a case's voxels"):
        export(kind, package.plan, package.weights, image, tmp_path / "exports", SETTINGS, write_another)
    assert not (tmp_path / "exports").exists()


def test_what_was_seen_is_shipped_and_said_in_the_card(segpipe_data: Path, tmp_path: Path) -> None:
    scan = segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"
    package = load_package(small_package(tmp_path / "package", scan=scan, exports=("onnx", "torchscript")))
    checks = read_json(package.folder / "exports" / "checks.json")
    assert all(0.9999 <= checks[kind]["share_of_equal_voxels"] <= 1 for kind in ("onnx", "torchscript"))
    assert {"exports/fold_0.onnx", "exports/fold_0.ts", "exports/checks.json"} <= set(package.seal.files)
    assert "onnx 100.0000%, torchscript 100.0000%" in package.card
