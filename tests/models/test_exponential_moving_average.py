"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.exponential_moving_average import MovingAverage


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
