"""The U-Net needs no MONAI, and MONAI's takes its weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
from monai.networks.nets import DynUNet

from pipeline.models.networks.build_network import build_network
from pipeline.models.networks.network_config import network_config


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("residual", [False, True])
def test_dynunet_has_every_weight_under_the_same_name(norm, residual):
    config = network_config({"name": "unet", "channels": (4, 8, 8, 12), "norm": norm, "residual": residual})
    ours = build_network(config, 2, 3)
    theirs = DynUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=3,
        kernel_size=config.kernel_size,
        strides=config.strides,
        upsample_kernel_size=config.strides[1:],
        filters=config.channels,
        norm_name=(norm, {"affine": True}),
        deep_supervision=True,
        deep_supr_num=config.deep_supervision,
        res_block=residual,
    )
    theirs_once = {name for name in theirs.state_dict() if not name.startswith("skip_layers")}
    assert set(ours.state_dict()) == theirs_once
    assert not theirs.load_state_dict(ours.state_dict(), strict=False).unexpected_keys


def test_building_it_imports_no_monai():
    code = (
        "import sys; from pipeline.models.networks.build_network import build_network; "
        "build_network({'name': 'unet', 'channels': [4, 8, 8]}, 1, 2); "
        "assert not any(name.split('.')[0] == 'monai' for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
