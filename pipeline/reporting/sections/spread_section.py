"""Spread over cases: box plots of each metric."""

from __future__ import annotations

from pipeline.reporting.charts.box_plots import box_strip
from pipeline.reporting.evaluation_results import Results
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.metric_titles import SHOWN

_SPREADS = {"dice": True, "nsd": True, "hd95_mm": False, "assd_mm": False}


def spread_section(results: Results) -> Html:
    note = (
        "Each point is a case (those outside the whiskers tell their name). Box: quartiles and median; whiskers: the "
        "furthest case within 1.5 interquartile ranges; diamond: mean. A triangle lies beyond the axis."
    )
    entries = results.summary["structures"]
    figures = []
    for metric, bounded in _SPREADS.items():
        if metric in results.metrics:
            means = {name: entry.get(metric) or {} for name, entry in entries.items()}
            title, digits = SHOWN[metric]
            picture = box_strip(title, results.of(metric), results.cases, results.structures, means, bounded, digits)
            figures.append(tag("figure", tag("h3", title), picture, class_="wide", tabindex=0))
    return join([tag("p", note, class_="muted"), figures])
