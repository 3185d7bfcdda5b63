"""Volumes: predicted against reference volumes, by Bland and Altman."""

from __future__ import annotations

from pipeline.reporting.charts.bland_altman import bland_altman
from pipeline.reporting.evaluation_results import Results
from pipeline.reporting.html_builder import Html, join, tag

_AGREEMENTS_OPEN = 9


def volumes_section(results: Results) -> Html:
    reference, predicted = results.of("volume_ref_ml"), results.of("volume_pred_ml")
    plots = [
        tag("figure", bland_altman(name, reference[:, i], predicted[:, i], results.cases), class_="third")
        for i, name in enumerate(results.structures)
    ]
    note = (
        "Bland and Altman: what the prediction is off by, against the structure's size; bias and limits of agreement "
        "(bias ± 1.96 SD)."
    )
    parts = [tag("p", note, class_="muted"), tag("div", plots[:_AGREEMENTS_OPEN], class_="gallery")]
    if more := plots[_AGREEMENTS_OPEN:]:
        parts.append(tag("details", tag("summary", f"{len(more)} more structures"), tag("div", more, class_="gallery")))
    return join(parts)
