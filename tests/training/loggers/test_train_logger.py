"""What training says while it goes on."""

from __future__ import annotations

from pipeline.training.loggers.train_logger import format_dice


def test_of_many_structures_a_line_names_the_worst():
    dice = {f"s{i}": i / 100 for i in range(99, -1, -1)}
    assert format_dice(dice) == (
        "  (lowest of 100: s0 0.000, s1 0.010, s2 0.020, s3 0.030, s4 0.040, s5 0.050, s6 0.060, s7 0.070)"
    )
    assert format_dice({"liver": 0.9, "spleen": 0.25}) == "  (liver 0.900, spleen 0.250)"
    assert format_dice({}) == ""
