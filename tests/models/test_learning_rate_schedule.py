"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from pipeline.models.learning_rate_schedule import cosine, learning_rate, poly
from pipeline.models.schedule_config import CosineConfig, PolyConfig


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
