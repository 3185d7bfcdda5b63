"""The cases and intervals of validation."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inference.sliding_window import window_grid
from pipeline.training.validation_schedule import plan_validation

ROI = (8, 8, 8)


@given(
    sizes=st.lists(st.tuples(*[st.integers(8, 60)] * 3), min_size=1, max_size=12),
    steps=st.integers(10, 5000),
    share=st.floats(0.01, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_validation_takes_its_share_or_one_case_side_by_side(sizes, steps, share):
    """A window costs a third of a patch, so that 3 · share · patches may be seen; the last validation is due anyway."""
    shapes = {f"c{i:02d}": size for i, size in enumerate(sizes)}
    plan = plan_validation(shapes, ROI, 2, steps, share, 0.5, None, None)
    allowed = 3 * share * 2 * steps
    cost = sum(window_grid(shapes[case], ROI, plan.overlap).count for case in plan.cases)
    rounds = sum(plan.due(step, steps) for step in range(1, steps + 1))
    assert set(plan.cases) <= set(shapes) and plan.due(steps, steps)
    if rounds * cost > allowed:
        assert rounds <= 2 and len(plan.cases) <= 2
        fewest = {overlap: min(window_grid(size, ROI, overlap).count for size in sizes) for overlap in (0.0, 0.5)}
        assert plan.overlap == (0.0 if fewest[0.5] > allowed else 0.5)
        assert len(plan.cases) == 1 or 2 * fewest[plan.overlap] <= allowed


def test_with_a_pinned_interval_all_validations_share_what_is_allowed():
    """100 steps of two patches and a share of 0.3 allow 180 windows; a case of 16³ has 27 of 8³ (overlap 0.5)."""
    shapes = {f"c{i}": (16, 16, 16) for i in range(8)}
    numbers = {
        interval: len(plan_validation(shapes, ROI, 2, 100, 0.3, 0.5, interval, None).cases)
        for interval in (100, 50, 30, 10)
    }
    assert numbers == {100: 6, 50: 3, 30: 1, 10: 1}


def test_asked_for_cases_and_intervals_are_kept():
    plan = plan_validation({f"c{i}": (16, 16, 16) for i in range(8)}, ROI, 2, 100, 0.01, 0.25, 7, 4)
    assert (plan.interval, len(plan.cases), plan.overlap) == (7, 4, 0.25)
