"""The head of the report: its main figures, and what was run in two sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.terminal import format_duration
from pipeline.reporting.format_numbers import number, plural
from pipeline.reporting.html_builder import Html, tag
from pipeline.reporting.run_record import RunRecord
from pipeline.reporting.sections.failures_section import failures


def headline(run: RunRecord) -> Html:
    """The few figures that a reader wants first."""
    mean = run.results.summary.get("mean", {})
    failed = failures(run)
    tiles = [
        _tile("mean Dice", _value(mean.get("dice"), 3), _interval(mean.get("dice"), 3)),
        _tile("mean NSD", _value(mean.get("nsd"), 3), _interval(mean.get("nsd"), 3)),
        _tile("mean HD95", _value(mean.get("hd95_mm"), 2, " mm"), _interval(mean.get("hd95_mm"), 2)),
        _tile("scored cases", str(len(run.results.cases)), plural(len(run.results.structures), "structure")),
        _tile("failed cases", str(len(failed)), "none" if not failed else "see Failures", alert=bool(failed)),
    ]
    return tag("div", tiles, class_="tiles")


def summary_sentence(run: RunRecord) -> str:
    """What was run, in two sentences."""
    training, testing = len(run.cases.training()), len(run.cases.testing())
    seconds = next((stage.timing.get("seconds") for stage in run.stages if stage.name == "train"), None)
    took = f" in {format_duration(seconds)}" if seconds is not None else ""
    folds = ", ".join(str(fold) for fold in run.train["folds"])
    network = run.train.get("network", {}).get("name", run.plan.network.get("name", "network"))
    loss = run.train.get("loss", {}).get("name", "")
    return (
        f"Data set {run.cases.dataset}: {training} training and {testing} testing cases, "
        f"{plural(len(run.cases.channels), 'channel')}, {plural(len(run.cases.structures), 'structure')}. "
        f"Network {network} with loss {loss}, fold {folds}, {run.train.get('steps', run.plan.max_steps)} steps{took}."
    )


def _tile(title: str, value: str, below: str, alert: bool = False) -> Html:
    return tag(
        "div", tag("span", title), tag("b", value), tag("small", below), class_="tile alert" if alert else "tile"
    )


def _value(entry: Mapping[str, Any] | None, digits: int, unit: str = "") -> str:
    return number(entry["mean"], digits) + unit if entry and entry.get("mean") is not None else "–"


def _interval(entry: Mapping[str, Any] | None, digits: int) -> str:
    low, high = (entry or {}).get("ci95") or (None, None)
    return "" if low is None or high is None else f"95 %: {number(low, digits)} to {number(high, digits)}"
