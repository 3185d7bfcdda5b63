"""The table of all cases, with the controls that sort and filter it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan

from pipeline.reporting.evaluation_results import Results
from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag, verbatim
from pipeline.reporting.metric_titles import SHOWN

_IN_CASE_TABLE = ("dice", "nsd", "hd95_mm", "assd_mm", "volume_ref_ml", "volume_pred_ml")
_CASE_TITLES = {
    **{key: title for key, (title, _) in SHOWN.items()},
    "volume_ref_ml": "reference ml",
    "volume_pred_ml": "predicted ml",
}


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
