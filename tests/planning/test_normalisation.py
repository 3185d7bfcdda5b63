"""Normalisation, from statistics that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.base.errors import ConfigError
from pipeline.planning.normalisation import plan_channels
from tests.planning.loaded_cases import make_case, make_cases

SHAPE, SPACING = (10, 10, 10), (1.0, 1.0, 1.0)


def test_ct_takes_the_foregrounds_percentiles_and_pooled_deviation() -> None:
    rows = [
        {"foreground_p005": -100.0, "foreground_p995": 200.0, "foreground_mean": 40.0, "foreground_std": 30.0},
        {"foreground_p005": -80.0, "foreground_p995": 300.0, "foreground_mean": 60.0, "foreground_std": 50.0},
    ]
    cases = make_cases([make_case(i, SHAPE, SPACING, intensity=row) for i, row in enumerate(rows)], modality="CT")
    (plan,), reason = plan_channels(cases.channels, cases.training(), {})
    assert (plan.scheme, plan.lower, plan.upper, plan.mean) == ("ct", -90.0, 250.0, 50.0)
    assert plan.std == pytest.approx(np.sqrt((30**2 + 50**2) / 2 + 10**2), abs=1e-3)
    assert "CT has a fixed scale" in reason


def test_other_channels_are_scaled_by_themselves_and_pins_go_first() -> None:
    cases = make_cases([make_case(0, SHAPE, SPACING)])
    assert plan_channels(cases.channels, cases.training(), {})[0][0].scheme == "zscore"
    (pinned,), reason = plan_channels(cases.channels, cases.training(), {"x": "none"})
    assert pinned.scheme == "none" and "pinned" in reason
    with pytest.raises(ConfigError, match=r"plan.normalisation names the channel 'xx'; did you mean 'x'\?"):
        plan_channels(cases.channels, cases.training(), {"xx": "none"})


def test_images_that_are_mostly_0_are_normalised_over_the_rest() -> None:
    empty = {"p50": 0.0, "min": 0.0}
    cases = make_cases([make_case(i, SHAPE, SPACING, intensity=empty if i < 3 else None) for i in range(4)])
    assert plan_channels(cases.channels, cases.training(), {})[0][0].nonzero
    full = make_cases([make_case(i, SHAPE, SPACING) for i in range(4)])
    assert not plan_channels(full.channels, full.training(), {})[0][0].nonzero
    # One voxel of 1e6 does not make voxels of 80 into zeros, and those of a PET are small but none.
    hot, pet = {"min": 0.0, "max": 1e6, "p50": 80.0}, {"min": 0.0, "max": 40.0, "p50": 0.02}
    for row in (hot, pet):
        cases = make_cases([make_case(i, SHAPE, SPACING, intensity=row) for i in range(4)])
        assert not plan_channels(cases.channels, cases.training(), {})[0][0].nonzero
