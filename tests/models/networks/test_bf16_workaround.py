"""bf16 convolutions on CPUs: gradients of guarded ones are those of fp32, whatever lay in memory before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.networks.bf16_workaround import GuardedConv3d, guard_bf16_convolutions


def _weight_gradient(conv: nn.Conv3d, image: torch.Tensor, upstream: torch.Tensor, bf16: bool) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = conv(image)
    return torch.autograd.grad((out.float() * upstream).sum(), conv.weight)[0]


def _dirty_memory(conv: nn.Conv3d) -> None:
    """Frees blocks of the weight's size that are full of large numbers, for the next computation to find."""
    for _ in range(3):
        torch.full_like(conv.weight, 1e30)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (3, 4, 3), (2, 4, 8), (4, 4, 4), (8, 2, 8), (6, 6, 6)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_weight_gradients_are_those_of_fp32(size, kernel, stride):
    torch.manual_seed(0)
    conv = nn.Conv3d(16, 16, kernel, stride=stride, padding=kernel // 2, bias=False)
    guard_bf16_convolutions(conv)
    image = torch.randn(2, 16, *size)
    upstream = torch.randn_like(conv(image))
    expected = _weight_gradient(conv, image, upstream, bf16=False)
    for _ in range(4):
        _dirty_memory(conv)
        found = _weight_gradient(conv, image, upstream, bf16=True)
        assert (found - expected).abs().max() <= 0.03 * expected.abs().max()


def test_guarding_keeps_weights_names_and_results():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 2, 3, padding=1))
    image = torch.randn(1, 1, 8, 8, 8)
    before, names = network(image), list(network.state_dict())
    guarded = guard_bf16_convolutions(network)
    assert [type(module) for module in guarded] == [GuardedConv3d, nn.ReLU, GuardedConv3d]
    assert list(guarded.state_dict()) == names and torch.equal(guarded(image), before)
