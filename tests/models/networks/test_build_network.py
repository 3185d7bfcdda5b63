"""Networks: sizes, equality with MONAI's, and refusals."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet
from pydantic import ValidationError
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.models.networks.build_network import build_network, check_gives_logits, has_batch_norm
from pipeline.models.networks.network_config import UNetConfig, network_config, size_divisor

ALL = ["unet", "vnet", "segresnet", "swinunetr"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_gives_logits_of_the_inputs_size(name, channels):
    size = (64, 32, 32)
    network = build_network({"name": name}, channels, 4, size).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, channels, *size))
    assert logits.shape == (1, 4, *size)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16, 18])
def test_the_vnet_takes_any_number_of_channels(channels):
    network = build_network({"name": "vnet"}, channels, 2, (32, 16, 16)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, channels, 32, 16, 16)).shape == (1, 2, 32, 16, 16)


def test_the_vnet_has_no_dropout_unless_asked_for_and_prelu_as_in_the_paper():
    network = build_network({"name": "vnet"}, 1, 2)
    rates = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout3d)}
    assert rates == {0.0}
    assert any(isinstance(module, torch.nn.PReLU) for module in network.modules())
    assert has_batch_norm(network)
    assert not has_batch_norm(build_network({"name": "vnet", "norm": "instance"}, 1, 2))


ANISOTROPIC = {
    "name": "unet",
    "channels": [4, 8, 16, 16],
    "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]],
    "kernel_size": [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
}


@pytest.mark.parametrize("residual", [False, True])
def test_the_unet_is_monais_dynunet_with_the_same_weights(residual):
    """Equal outputs, in training one per level: ours small, MONAI's scaled up to full size."""
    config = network_config({**ANISOTROPIC, "residual": residual, "deep_supervision": 2})
    ours = build_network(config, 2, 3)
    theirs = DynUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=3,
        kernel_size=config.kernel_size,
        strides=config.strides,
        upsample_kernel_size=config.strides[1:],
        filters=config.channels,
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=2,
        res_block=residual,
    )
    theirs.load_state_dict(ours.state_dict(), strict=False)
    image = torch.randn(2, 2, 32, 16, 8)
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))
    levels, stacked = ours.train()(image), theirs.train()(image)
    assert [tuple(level.shape[2:]) for level in levels] == [(32, 16, 8), (16, 8, 8), (8, 4, 4)]
    for level, theirs_level in zip(levels, stacked.unbind(1), strict=True):
        torch.testing.assert_close(torch.nn.functional.interpolate(level, (32, 16, 8)), theirs_level)


def test_the_unets_weights_are_stored_once():
    network = build_network({"name": "unet"}, 1, 3)
    stored = sum(tensor.numel() for tensor in network.state_dict().values())
    assert stored == sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("network", "divisor"),
    [
        ({"name": "unet"}, (8, 8, 8)),
        (ANISOTROPIC, (8, 8, 4)),
        ({"name": "vnet"}, (16, 16, 16)),
        ({"name": "segresnet"}, (8, 8, 8)),
        ({"name": "swinunetr"}, (32, 32, 32)),
    ],
)
def test_sizes_must_be_divisible_and_the_message_names_one_that_fits(network, divisor):
    assert size_divisor(network) == divisor
    build_network(network, 1, 2, tuple(4 * step for step in divisor))
    with pytest.raises(ConfigError, match=r"use .*or leave plan\.patch_size open"):
        build_network(network, 1, 2, tuple(4 * step + 1 for step in divisor))


def test_a_patch_that_shrinks_to_one_voxel_is_refused():
    with pytest.raises(ConfigError, match="to a single voxel"):
        build_network({"name": "unet"}, 1, 2, (8, 8, 8))


@pytest.mark.parametrize(
    "values",
    [
        {"channels": (8, 16), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2))},
        {"channels": (8, 16)},
        {"strides": ((2, 2, 2), (2, 2, 2), (2, 2, 2))},
        {"channels": (8, 16, 32), "deep_supervision": 2},
        {"chanels": (8, 16, 32)},
    ],
)
def test_settings_that_contradict_each_other_are_refused(values):
    with pytest.raises(ValidationError):
        UNetConfig(**values)


def test_levels_with_a_loss_may_be_asked_for_before_there_are_levels():
    """Planning chooses how many there are; without it, as many as that takes."""
    config = UNetConfig(deep_supervision=3)
    filled = network_config(config)
    assert len(filled.channels) == len(filled.strides) == 5 and filled.deep_supervision == 3
    assert len(network_config(UNetConfig()).channels) == 4


def test_equal_seeds_give_equal_networks():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_network({"name": "unet"}, 1, 2))
    for one, other in zip(*(network.state_dict().values() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_a_network_that_ends_in_an_activation_is_refused():
    with pytest.raises(ConfigError, match="it would be applied twice"):
        check_gives_logits(nn.Sequential(nn.Conv3d(1, 2, 1), nn.Softmax(1)))
    check_gives_logits(nn.Sequential(nn.Conv3d(1, 2, 1)))
