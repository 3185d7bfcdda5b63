"""Exports give torch's labels on a real case, or are not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import SegpipeError
from pipeline.data.formats import read_image
from pipeline.serving import export as exporting
from pipeline.serving.export import export
from pipeline.serving.model import load_package
from tests.serving.small_package import small_package

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_an_ensemble_is_exported_and_gives_the_same_labels(kind, segpipe_data: Path, tmp_path: Path) -> None:
    package = load_package(small_package(tmp_path / "package", seeds=(0, 1)))
    image = read_image([segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"])
    files = export(kind, package.plan, package.weights, image, tmp_path / "exports")
    assert [file.stem for file in files] == ["fold_0", "fold_1"]
    windows = np.random.default_rng(0).normal(size=(3, 1, *package.plan.patch_size)).astype(np.float32)
    reader = exporting._READERS[kind](files)
    with reader.working():
        logits = np.asarray(reader(windows))
    assert logits.shape == (3, 3, *package.plan.patch_size)


def test_an_export_that_differs_is_not_written(segpipe_data: Path, tmp_path: Path, monkeypatch) -> None:
    package = load_package(small_package(tmp_path / "package"))
    image = read_image([segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"])
    write = exporting._write_onnx

    def write_another(network, example, path):
        for parameter in network.parameters():
            parameter.data.mul_(-1)
        write(network, example, path)
        for parameter in network.parameters():
            parameter.data.mul_(-1)

    monkeypatch.setitem(exporting._WRITERS, "onnx", write_another)
    with pytest.raises(SegpipeError, match=r"only \d+\.\d+% of a case's voxels"):
        export("onnx", package.plan, package.weights, image, tmp_path / "exports")
    assert not (tmp_path / "exports").exists()
