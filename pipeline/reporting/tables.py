"""Tables of the page: results with intervals, every case, subgroups, faults, failures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

from pipeline.reporting.charts.svg_axes import number
from pipeline.reporting.html_builder import Html, join, tag, verbatim
from pipeline.reporting.results import Results

# Metric to its column title and the digits it is shown with, in the order of the table.
SHOWN = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "nsd": ("NSD", 3),
    "hd95_mm": ("HD95 mm", 2),
    "assd_mm": ("ASSD mm", 2),
    "volume_difference_ml": ("volume difference ml", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "lesion_f1": ("lesion F1", 3),
}
_LONG = 24
_IN_CASE_TABLE = ("dice", "nsd", "hd95_mm", "assd_mm", "volume_ref_ml", "volume_pred_ml")
_CASE_TITLES = {
    **{key: title for key, (title, _) in SHOWN.items()},
    "volume_ref_ml": "reference ml",
    "volume_pred_ml": "predicted ml",
}


def table(columns: Sequence[object], rows: Iterable[Sequence[object]], class_: str = "") -> Html:
    """A table whose first column heads its rows; a long one scrolls in a box of its own."""
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    return tag(
        "div", tag("table", tag("thead", head), tag("tbody", body), class_=class_ or None), class_="scroll", tabindex=0
    )


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


def case_table(results: Results, sets: Mapping[str, str]) -> Html:
    """All cases, worst first, with the controls that sort and filter them and the figures of each structure.

    sets: case to the fold or split that it was scored in. Without scripts it shows the means over structures.
    """
    metrics = [name for name in _IN_CASE_TABLE if name in results.metrics]
    order = results.worst_first()
    order += sorted(set(range(len(results.cases))) - set(order))
    means = {metric: results.mean_over_structures(metric) for metric in metrics}
    rows = []
    for i in order:
        case = results.cases[i]
        cells = [tag("td", "–", class_="one") if _of_one(m) else tag("td", _number(means[m][i], m)) for m in metrics]
        lowest = _lowest(results, i)
        row = [tag("th", case, scope="row"), tag("td", sets.get(case, "")), cells, tag("td", lowest)]
        rows.append(tag("tr", row, data_case=i))
    titles = ["case", "set", *(_CASE_TITLES[m] for m in metrics), "lowest structure"]
    of_one = [False, False, *map(_of_one, metrics), False]
    head = tag("tr", [_sortable(title, i, of_one[i]) for i, title in enumerate(titles)])
    body = tag("table", tag("thead", head), tag("tbody", rows), class_="figures cases means", id="cases")
    return join([_controls(results), tag("div", body, class_="scroll tall", tabindex=0), _data(results, metrics)])


def faults_table(faults: Sequence[Mapping[str, Any]]) -> Html:
    """Faults by severity, each with what was found and its cure."""
    severities = {"fatal": 0, "fixable": 1, "warning": 2}
    ordered = sorted(faults, key=lambda f: (severities.get(str(f.get("severity")), 3), str(f.get("case"))))
    rows = [
        [f.get("case"), _badge(str(f.get("severity", ""))), f.get("code"), f.get("file"), f.get("found"), f.get("cure")]
        for f in ordered
    ]
    return table(["case", "severity", "what", "file", "found", "cure"], rows, "words")


def _badge(severity: str) -> Html:
    known = severity if severity in {"fatal", "fixable", "warning"} else "other"
    return tag("span", severity, class_=f"badge {known}")


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


def _number(value: float, metric: str) -> str:
    return number(value, SHOWN.get(metric, ("", 2))[1])


def _lowest(results: Results, case: int) -> str:
    dice = results.of("dice")[case]
    known = [(value, name) for value, name in zip(dice.tolist(), results.structures, strict=True) if not isnan(value)]
    return f"{min(known)[1]} {number(min(known)[0])}" if known else "–"


def _of_one(metric: str) -> bool:
    """Whether a figure is one structure's only: volumes of different structures have no mean worth a column."""
    return metric.startswith("volume")


def _sortable(title: str, column: int, of_one: bool) -> Html:
    button = tag("button", title, type="button", data_column=column)
    return tag("th", button, scope="col", aria_sort="none", class_="one" if of_one else None)


def _controls(results: Results) -> Html:
    options = [tag("option", "mean over structures", value="-1")]
    options += [tag("option", name, value=str(i)) for i, name in enumerate(results.structures)]
    return tag(
        "form",
        tag("label", "case contains ", tag("input", type="search", id="filter", autocomplete="off")),
        tag("label", "figures of ", tag("select", options, id="structure")),
        tag("label", "Dice below ", tag("input", type="number", id="below", min="0", max="1", step="0.05")),
        tag("output", f"{len(results.cases)} cases", id="count", aria_live="polite"),
        class_="controls",
        id="controls",
        hidden=True,
    )


def _data(results: Results, metrics: Sequence[str]) -> Html:
    """Figures of every structure, for the script: case × metric × structure, as text the way it is shown."""
    texts = [
        [[_number(value, m) for value in results.of(m)[i].tolist()] for m in metrics] for i in range(len(results.cases))
    ]
    content = json.dumps(texts, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return tag("script", verbatim(content), type="application/json", id="figures")


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
