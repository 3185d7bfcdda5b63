"""nnU-Net's own summary.json: what we read from it, and that our scores of the same label maps are its scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.metrics.score_case import MetricConfig, score_case
from pipeline.evaluation.metrics.summary import ScoredCase, summarise
from pipeline.evaluation.read_scores import Scores, read_scores
from tests.golden.nnunet import IGNORE, MAPS, drawn

STRUCTURES = {"labels": {"label 1": (1,), "label 2": (2,)}, "regions": {"label 1+2": (1, 2), "label 2": (2,)}}
KEYS = {"label 1": "1", "label 1+2": "(1, 2)"}


def written(kind: str) -> Path:
    return Path(__file__).with_name(f"nnunet_2.8.1_{kind}.json")


def key_of(kind: str, name: str) -> str:
    return KEYS.get(name, "2" if kind == "labels" else "(2,)")


def read(kind: str) -> Scores:
    return read_scores([written(kind)])[0]


@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_is_read_has_the_means_that_nnunet_states(kind: str) -> None:
    stated, scores = json.loads(written(kind).read_text(encoding="utf-8")), read(kind)
    assert scores.cases == list(MAPS)
    assert set(scores.structures) == set(STRUCTURES[kind])
    means = []
    for name in scores.structures:
        for ours, theirs in (("dice", "Dice"), ("iou", "IoU")):
            mean = np.nanmean(scores.column(name, ours, scores.cases))
            assert mean == pytest.approx(stated["mean"][key_of(kind, name)][theirs])
        means.append(np.nanmean(scores.column(name, "dice", scores.cases)))
    assert np.mean(means) == pytest.approx(stated["foreground_mean"]["Dice"])


@pytest.mark.parametrize("kind", STRUCTURES)
def test_the_policy_nnunet_gives_what_nnunet_wrote(kind: str) -> None:
    """A structure moved, missed, invented, half of it ignored, and absent on both sides."""
    structures, settings = STRUCTURES[kind], MetricConfig(empty_policy="nnunet")
    scores, cases = read(kind), []
    for case, (ref, pred) in MAPS.items():
        rows = score_case(drawn(pred), drawn(ref), structures, (1.0, 1.0, 1.0), settings, IGNORE).rows
        cases.append(ScoredCase(case, case, rows))
        for name, row in rows.items():
            for metric in ("dice", "iou"):
                assert row[metric] == pytest.approx(scores.table[case, name].get(metric)), (case, name, metric)
    stated = json.loads(written(kind).read_text(encoding="utf-8"))
    ours = summarise(cases, list(structures), resamples=100)["mean"]
    assert ours["dice"]["mean"] == pytest.approx(stated["foreground_mean"]["Dice"])
    assert ours["iou"]["mean"] == pytest.approx(stated["foreground_mean"]["IoU"])
