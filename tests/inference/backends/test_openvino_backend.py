"""OpenVINO gives what torch gives: logits in fp32, labels in nearly every voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.inference.backends.openvino_backend import OpenVinoModel
from pipeline.inference.backends.torch_backend import TorchModel
from pipeline.models.networks.build_network import build_network

openvino = pytest.importorskip("openvino")


@pytest.mark.slow
def test_logits_and_labels_are_torchs(tmp_path):
    networks, files = [], []
    windows = np.random.default_rng(0).normal(size=(2, 1, 16, 16, 16)).astype(np.float32)
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_network({"name": "unet", "channels": [4, 8, 16], "deep_supervision": 1}, 1, 3).eval()
        model = openvino.convert_model(network, example_input=torch.zeros(1, 1, 16, 16, 16))
        model.reshape([-1, 1, 16, 16, 16])
        files.append(tmp_path / f"fold_{seed}.xml")
        openvino.save_model(model, files[-1], compress_to_fp16=False)
        networks.append(network)
    expected = TorchModel(networks, torch.device("cpu"), mirror_axes=(0, 2))
    with expected.inference_context():
        logits = expected(windows).numpy()
    found = OpenVinoModel(files, mirror_axes=(0, 2))(windows)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    assert (found.argmax(1) == logits.argmax(1)).mean() >= 0.999
