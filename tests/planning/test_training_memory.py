"""Memory as it is counted: bytes that can be added up on paper, and laws of the prediction."""

from __future__ import annotations

import pytest
import torch

from pipeline.planning.step_timing import Precision, StepSpec
from pipeline.planning.tensor_memory import LiveTensorBytes
from pipeline.planning.training_memory import predict_memory

CPU = torch.device("cpu")
NETWORK = {"name": "unet", "channels": [8, 16, 32]}


def nothing_beside(*_: object) -> int:
    return 0


def test_storages_count_from_their_making_until_they_are_freed() -> None:
    """a (4000 bytes), b = a + 1 and c = b · 2 are 12000 together; without a and b 4000 are left."""
    with LiveTensorBytes(nothing_beside) as counted:
        a = torch.zeros(1000)
        b = a + 1
        assert (counted.live, counted.peak) == (8000, 8000)
        c = b * 2
        del a, b
        assert (counted.live, counted.peak) == (4000, 12000)
        c = c.double()
        assert counted.live == 8000
    assert c.numel() == 1000


def test_views_and_results_in_place_take_nothing() -> None:
    with LiveTensorBytes(nothing_beside) as counted:
        a = torch.zeros(10, 100)
        a[2:].add_(1)
        a.reshape(-1).relu_()
        assert counted.peak == 4000


def test_what_autograd_keeps_is_alive_until_its_backward() -> None:
    """exp keeps its result, square its input: x is the caller's, e and s are made; backward adds gradients."""
    x = torch.ones(1000, requires_grad=True)
    with LiveTensorBytes(nothing_beside) as counted:
        loss = x.exp().square().sum()
        forward = counted.live
        loss.backward()
        del loss
    assert forward == 4000 + 4  # e is kept for both; s went with its sum
    assert counted.live == 4000  # the gradient of x
    assert counted.peak >= 3 * 4000


def test_workspace_counts_only_while_its_operation_runs() -> None:
    with LiveTensorBytes(
        lambda operation, arguments, made: 500 if operation is torch.ops.aten.exp.default else 0
    ) as counted:
        x = torch.zeros(100).exp()
    assert (counted.live, counted.peak, x.numel()) == (400, 800 + 500, 100)


def step_gib(batch: int = 2, precision: Precision = "fp32", **network: object) -> float:
    return predict_memory(StepSpec({**NETWORK, **network}, 1, 3, (32, 32, 32), batch), precision, CPU).step


def test_a_step_grows_with_batch_and_width_and_shrinks_with_bf16() -> None:
    assert step_gib(batch=8) == pytest.approx(4 * step_gib(batch=2), rel=0.1)
    assert step_gib(channels=[16, 32, 64]) == pytest.approx(2 * step_gib(), rel=0.15)
    assert 0.4 < step_gib(precision="bf16") / step_gib() < 0.7


@pytest.mark.parametrize(
    "network",
    [
        {"name": "vnet"},
        {"name": "segresnet", "init_filters": 8},
        {"name": "unet", "channels": [8, 8, 8], "residual": True},
    ],
)
def test_every_network_is_gone_through_without_computing(network: dict) -> None:
    """A million voxels would take seconds to compute and hundreds of MiB to hold."""
    memory = predict_memory(StepSpec(network, 2, 3, (96, 96, 96), 1), "fp32", CPU)
    assert memory.step > 8 * 96**3 * 4 / 2**30
    assert memory.total == memory.process + memory.weights + memory.batches + memory.step


def test_a_gpu_holds_neither_program_nor_heap() -> None:
    work = StepSpec(NETWORK, 1, 3, (32, 32, 32), 2)
    cpu, cuda = predict_memory(work, "bf16", CPU), predict_memory(work, "bf16", torch.device("cuda"))
    assert cuda.process == 0 and 0 < cuda.step < cpu.step


def test_batches_that_a_step_adds_up_are_held_but_worked_on_one_by_one() -> None:
    one, four = (predict_memory(StepSpec(NETWORK, 1, 3, (32, 32, 32), 2, accumulate=n), "fp32", CPU) for n in (1, 4))
    assert four.batches == 4 * one.batches and (four.step, four.weights) == (one.step, one.weights)
