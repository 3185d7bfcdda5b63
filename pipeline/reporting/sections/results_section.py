"""Results: every metric per structure and subgroup with its interval, and what the figures mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.evaluation_results import Results
from pipeline.reporting.format_numbers import number, plural
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.metric_titles import SHOWN
from pipeline.reporting.run_record import RunRecord
from pipeline.reporting.sections.postprocessing_section import chosen_on_scored


def results_section(run: RunRecord, sets: Mapping[str, str]) -> Html:
    results = run.results
    notes = [
        tag("p", scored_on(results, sets), class_="muted"),
        tag("p", "Mean over cases; below it the 95 % bootstrap interval of the mean, by subject.", class_="muted"),
    ]
    if chosen_on_scored(run.postprocess):
        choice = "Postprocessing was chosen on the validation cases, so their figures include that choice; see "
        notes.append(tag("p", choice, tag("a", "Postprocessing", href="#postprocessing"), ".", class_="muted"))
    definitions = definition_list(results.summary.get("definitions", {}))
    return join([notes, results_table(results), group_tables(results.summary), definitions])


def scored_on(results: Results, sets: Mapping[str, str]) -> str:
    """Whose figures these are: cases that the scored networks were validated on, or cases that were kept apart."""
    testing = sum(sets.get(case) == "testing" for case in results.cases)
    validation = len(results.cases) - testing
    said = []
    if validation:
        said.append(
            f"{plural(validation, 'validation case')}, each segmented by a network that was not trained on it (what "
            "was tuned by hand on them is not seen from here)"
        )
    if testing:
        said.append(f"{plural(testing, 'testing case')}, segmented by all trained folds together")
    both = " The means are over both; see Dice by split." if validation and testing else ""
    return f"Scored: {'; '.join(said) or 'no case'}.{both}"


def results_table(results: Results) -> Html:
    """Every metric: mean over mean's interval and standard deviation, a row per structure and one for their mean.

    Where a mean is of other than the row's number of cases, its own number stands below it.
    """
    entries = results.summary["structures"]
    metrics = [name for name in SHOWN if any(_defined(entry.get(name)) for entry in entries.values())]
    rows = [
        [name, *(_figure(entry.get(m), m, cases=_scored(entry)) for m in metrics), _counts(entry)]
        for name, entry in entries.items()
    ]
    mean, of = (
        results.summary.get("mean", {}),
        tag("span", tag("small", f"of {len(entries)} structures"), class_="figure"),
    )
    rows.append([tag("strong", "mean"), *(_figure(mean.get(m), m, strong=True) for m in metrics), of])
    return table(["structure", *(SHOWN[m][0] for m in metrics), "cases"], rows, "figures")


def group_tables(summary: Mapping[str, Any]) -> Html:
    """Mean Dice by subgroup, one table per manifest column; nothing without subgroups."""
    parts = []
    for column, groups in summary.get("groups", {}).items():
        names = list(summary["structures"])
        rows = [
            [
                value,
                entry.get("n_cases", ""),
                *(
                    _figure(entry["structures"].get(n, {}).get("dice"), "dice", cases=entry.get("n_cases"))
                    for n in names
                ),
            ]
            for value, entry in groups.items()
        ]
        parts.append(tag("h3", f"Dice by {column}"))
        parts.append(table([column, "cases", *names], rows, "figures"))
    return join(parts)


def definition_list(definitions: Mapping[str, Any]) -> Html:
    """What each figure means, folded away."""
    entries = [join([tag("dt", key), tag("dd", _plain(value))]) for key, value in definitions.items()]
    return tag("details", tag("summary", "What the figures mean"), tag("dl", entries))


def _defined(entry: Mapping[str, Any] | None) -> bool:
    return bool(entry) and entry is not None and entry.get("mean") is not None


def _figure(entry: Mapping[str, Any] | None, metric: str, strong: bool = False, cases: int | None = None) -> Html:
    """A mean over its interval; its number of cases too where that is not `cases`."""
    if not entry or entry.get("mean") is None:
        return tag("span", "–", class_="muted")
    digits = SHOWN[metric][1]
    mean = tag("strong" if strong else "b", number(entry["mean"], digits))
    interval, spread = entry.get("ci95") or (None, None), entry.get("std")
    below = f"{number(interval[0], digits)} to {number(interval[1], digits)}" if None not in interval else ""
    if cases is not None and entry.get("n", cases) != cases:
        below += f"{', ' if below else ''}n {entry['n']}"
    tip = f"standard deviation {number(spread, digits)}" if spread is not None else None
    return tag("span", mean, tag("small", below), class_="figure", title=tip)


def _scored(entry: Mapping[str, Any]) -> int | None:
    """The cases whose Dice is defined."""
    return entry.get("counts", {}).get("n_scored", entry.get("dice", {}).get("n"))


def _counts(entry: Mapping[str, Any]) -> Html:
    counts = entry.get("counts", {})
    notes = {
        "n_both_empty": "absent in both",
        "n_false_positive": "false positive",
        "n_false_negative": "missed",
    }
    said = [f"{counts[key]} {words}" for key, words in notes.items() if counts.get(key)]
    scored = _scored(entry)
    return tag("span", tag("b", "" if scored is None else scored), tag("small", ", ".join(said)), class_="figure")


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
