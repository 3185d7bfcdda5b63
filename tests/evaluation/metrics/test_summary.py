"""Means, counts and subgroups on a small table whose answers can be written down."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.metrics.score_case import METRICS, Row
from pipeline.evaluation.metrics.summary import MEAN_METRICS, ScoredCase, summarise


def row(dice: float | None, empty: str | None = None) -> Row:
    return {**dict.fromkeys(METRICS), "dice": dice, "empty": empty}


def test_counts_stand_beside_the_mean() -> None:
    rows = [row(0.9), row(0.0, "ref_empty"), row(None, "both_empty"), row(0.0, "pred_empty"), row(0.7)]
    cases = [ScoredCase(str(i), str(i), {"lesion": one}) for i, one in enumerate(rows)]
    lesion = summarise(cases, ["lesion"], 100)["structures"]["lesion"]
    assert lesion["dice"]["mean"] == pytest.approx(1.6 / 4)
    assert lesion["counts"] == {
        "n_cases": 5, "n_scored": 4, "n_ref_empty": 2, "n_pred_empty": 2, "n_both_empty": 1, "n_false_positive": 1,
        "n_false_negative": 1, "detection_sensitivity": pytest.approx(2 / 3), "detection_specificity": 0.5,
    }  # fmt: skip


def test_the_mean_is_over_structures_and_not_over_rows() -> None:
    """One structure is in two cases, the other in one: a flat mean would weigh the first one double."""
    cases = [
        ScoredCase("a", "a", {"common": row(0.6), "rare": row(None, "both_empty")}),
        ScoredCase("b", "b", {"common": row(0.8), "rare": row(0.1)}),
    ]
    mean = summarise(cases, ["common", "rare"], 100)["mean"]
    assert mean["dice"]["mean"] == pytest.approx((0.7 + 0.1) / 2)
    assert mean["dice"]["n"] == 2
    assert set(mean) == set(MEAN_METRICS)


def test_interval_of_the_mean_follows_subjects() -> None:
    """Two structures that fail in the same patients vary together; their mean's interval must not shrink."""
    values = np.random.default_rng(0).uniform(0.5, 1, 40)
    cases = [ScoredCase(str(i), str(i), {"left": row(v), "right": row(v)}) for i, v in enumerate(values)]
    summary = summarise(cases, ["left", "right"], 1000)
    assert summary["mean"]["dice"]["ci95"] == pytest.approx(summary["structures"]["left"]["dice"]["ci95"])


def test_a_subgroups_table_is_that_of_its_cases_alone() -> None:
    values = np.random.default_rng(1).uniform(0.5, 1, 30)
    cases = [
        ScoredCase(f"case {i}", f"subject {i // 2}", {"one": row(v)}, {"site": "east" if i < 12 else "west"})
        for i, v in enumerate(values)
    ]
    sites = summarise(cases, ["one"], 500)["groups"]["site"]
    for name, members in (("east", cases[:12]), ("west", cases[12:])):
        alone = [ScoredCase(case.id, case.subject, case.rows) for case in members]
        assert sites[name] == {key: v for key, v in summarise(alone, ["one"], 500).items() if key != "groups"}


def test_subgroups_have_the_same_tables() -> None:
    cases = [
        ScoredCase("a", "a", {"one": row(0.5)}, {"site": "east"}),
        ScoredCase("b", "b", {"one": row(0.7)}, {"site": "west"}),
        ScoredCase("c", "c", {"one": row(0.9)}, {"site": "west"}),
    ]
    sites = summarise(cases, ["one"], 100)["groups"]["site"]
    assert sites["east"]["structures"]["one"]["dice"]["mean"] == 0.5
    assert sites["west"]["mean"]["dice"]["mean"] == pytest.approx(0.8)
    assert sites["west"]["n_cases"] == 2
