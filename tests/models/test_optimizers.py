"""Learning rates from closed forms, optimisers, and the moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.optimizer_config import AdamWConfig, CosineConfig, PolyConfig, SGDConfig
from pipeline.models.optimizers import MovingAverage, base_learning_rate, build_optimizer, cosine, learning_rate, poly


@pytest.mark.parametrize(("step", "rate"), [(0, 0.01), (250, 0.00771890), (500, 0.00535887), (999, 1.99526e-5)])
def test_golden_g09_poly(step, rate):
    """nnU-Net, nnunetv2/training/lr_scheduler/polylr.py."""
    assert poly(0.01, step, 1000, 0.9) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 2.9985e-7), (1999, 5.997e-4), (2000, 6e-4), (301_000, 3.3e-4), (600_000, 6e-5)]
)
def test_golden_g10_cosine_with_warm_up(step, rate):
    """nanoGPT, train.py get_lr."""
    assert cosine(6e-4, step, 600_000, 2000, 6e-5) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("schedule", [PolyConfig(warmup=0.1), CosineConfig(warmup=0.1)])
def test_schedules_rise_then_fall_and_stay_within_the_rate(schedule):
    rates = [learning_rate(schedule, 0.01, step, 100) for step in range(100)]
    top = rates.index(max(rates))
    assert 8 <= top <= 10
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0 and max(rates) <= 0.01


def test_the_schedule_depends_on_the_share_of_steps_alone():
    """Twice the steps: the same rate at the same share of the way (warm-up, of one step or two, apart)."""
    for step in range(2, 50):
        half, whole = learning_rate(PolyConfig(), 0.1, step, 50), learning_rate(PolyConfig(), 0.1, 2 * step, 100)
        assert half == pytest.approx(whole)


def test_optimisers_are_torchs_with_our_settings():
    sgd = build_optimizer(SGDConfig(lr=0.1, momentum=0.9), nn.Linear(2, 2).parameters())
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["nesterov"] and sgd.defaults["momentum"] == 0.9
    adamw = build_optimizer(AdamWConfig(), nn.Linear(2, 2).parameters())
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["lr"] == base_learning_rate(AdamWConfig()) == 0.01
    assert (
        base_learning_rate(AdamWConfig(), "swinunetr") == 0.001
        and base_learning_rate(AdamWConfig(lr=0.2), "swinunetr") == 0.2
    )


def test_the_average_of_constant_weights_is_that_constant_and_of_a_step_goes_there_geometrically():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = MovingAverage(network, horizon=4)
    for step in range(100):
        average.update(network, step)
    assert float(average.weights["weight"]) == 1.0
    nn.init.constant_(network.weight, 0.0)
    for step in range(100, 103):
        average.update(network, step)
    assert float(average.weights["weight"]) == pytest.approx(0.75**3)


def test_the_average_forgets_the_random_beginning():
    """Early on it looks back a tenth of the steps done, whatever its horizon."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1000.0)
    average = MovingAverage(network, horizon=1e9)
    nn.init.constant_(network.weight, 1.0)
    for step in range(200):
        average.update(network, step)
    assert float(average.weights["weight"]) == pytest.approx(1.0, abs=0.02)


def test_the_average_copies_counters_and_averages_running_statistics():
    network = nn.BatchNorm3d(2)
    average = MovingAverage(network, horizon=2)
    network.train()(5 + torch.randn(2, 2, 4, 4, 4))
    average.update(network, 50)
    assert int(average.weights["num_batches_tracked"]) == 1
    torch.testing.assert_close(average.weights["running_mean"], network.running_mean / 2)
