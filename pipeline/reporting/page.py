"""The offline page: sections in order, its style and script inline, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from pipeline.reporting.case_images import CaseImage, case_pictures, shown_channels
from pipeline.reporting.charts.bland_altman import bland_altman
from pipeline.reporting.charts.box_plots import box_strip
from pipeline.reporting.charts.confusion_chart import confusion_table
from pipeline.reporting.charts.svg_axes import plural
from pipeline.reporting.html_builder import Html, join, tag, verbatim
from pipeline.reporting.postprocessing_section import chosen_on_scored, postprocessing_section
from pipeline.reporting.results import Results
from pipeline.reporting.run_record import RunRecord
from pipeline.reporting.sections import (
    data_section,
    failures,
    failures_section,
    headline,
    plan_section,
    provenance_section,
    summary_sentence,
    training_section,
)
from pipeline.reporting.tables import SHOWN, case_table, definition_list, group_tables, results_table

_SPREADS = {"dice": True, "nsd": True, "hd95_mm": False, "assd_mm": False}
_AGREEMENTS_OPEN = 9


def report_page(run: RunRecord, worst: CaseImage, median: CaseImage, version: str) -> str:
    """The whole report as one HTML document; `version` is the program's."""
    sections = _sections(run, worst, median)
    body = [
        _header(run),
        tag("nav", [tag("a", title, href=f"#{key}") for key, (title, _) in sections.items()], aria_label="sections"),
        tag("main", [_section(key, title, content) for key, (title, content) in sections.items()]),
        tag("footer", f"Made by segpipe {version}. Research use: not for clinical decisions."),
    ]
    return document(f"{run.name}: segmentation report", body, _shipped("page.css"), _shipped("page.js"))


def document(title: str, body: object, style: str, script: str) -> str:
    """An HTML document that may load nothing: only this very style and script and embedded pictures are let in."""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", verbatim(style)),
    )
    page = tag("html", head, tag("body", body, tag("script", verbatim(script))), lang="en")
    return f"<!doctype html>\n{page}\n"


def _sections(run: RunRecord, worst: CaseImage, median: CaseImage) -> dict[str, tuple[str, Html]]:
    results = run.results
    sets = {str(entry["id"]): _set_of(run, entry) for entry in run.inferred}
    shown = shown_channels(run, [*worst, *median])
    sections = {
        "results": ("Results", _results(run, sets)),
        "spread": ("Spread over cases", _spread(results)),
        "worst": ("Worst cases", case_pictures(run, "worst", worst, shown, sets)),
        "median": ("Median cases", case_pictures(run, "median", median, shown, sets)),
        "agreement": ("Volumes", _agreement(results)),
        "confusion": ("Confusion", _confusion(results)),
        "all": ("All cases", case_table(results, sets)),
        "failures": (f"Failures ({len(failures(run))})", failures_section(run)),
        "data": ("Data", data_section(run)),
        "plan": ("Plan", plan_section(run)),
        "training": ("Training", training_section(run)),
        "postprocessing": ("Postprocessing", postprocessing_section(run.postprocess)),
        "provenance": ("Provenance", provenance_section(run)),
    }
    return {key: (title, content) for key, (title, content) in sections.items() if content}


def _header(run: RunRecord) -> Html:
    theme = tag("button", "theme: auto", type="button", id="theme", hidden=True)
    return tag("header", theme, tag("h1", run.name), tag("p", summary_sentence(run)), headline(run))


def _section(key: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title), content, id=key)


def _results(run: RunRecord, sets: Mapping[str, str]) -> Html:
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


def _spread(results: Results) -> Html:
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


def _agreement(results: Results) -> Html:
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


def _confusion(results: Results) -> Html:
    matrix = results.summary.get("confusion")
    if not matrix:
        return tag("p", "No case was scored.", class_="muted")
    note = "Where the voxels of each reference structure went, over all scored cases. Rows add up to 100 %."
    if matrix["labels"][1:] != list(results.summary["structures"]):
        note += " Structures share label values here, so the rows are their parts, which share none."
    heat = tag("div", confusion_table(matrix["labels"], matrix["voxels"]), class_="scroll", tabindex=0)
    return join([tag("p", note, class_="muted"), heat])


def _set_of(run: RunRecord, entry: Mapping[str, object]) -> str:
    folds = entry.get("folds") or []
    split = next((case.split for case in run.cases.cases if case.id == entry["id"]), "")
    if split == "testing" or not isinstance(folds, list):
        return split
    return "fold " + ", ".join(str(fold) for fold in folds)


def _shipped(name: str) -> str:
    return files("pipeline.reporting").joinpath(name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
