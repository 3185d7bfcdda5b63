"""Confusion between structures."""

from __future__ import annotations

from pipeline.reporting.charts.confusion_chart import confusion_table
from pipeline.reporting.evaluation_results import Results
from pipeline.reporting.html_builder import Html, join, tag


def confusion_section(results: Results) -> Html:
    matrix = results.summary.get("confusion")
    if not matrix:
        return tag("p", "No case was scored.", class_="muted")
    note = "Where the voxels of each reference structure went, over all scored cases. Rows add up to 100 %."
    if matrix["labels"][1:] != list(results.summary["structures"]):
        note += " Structures share label values here, so the rows are their parts, which share none."
    heat = tag("div", confusion_table(matrix["labels"], matrix["voxels"]), class_="scroll", tabindex=0)
    return join([tag("p", note, class_="muted"), heat])
