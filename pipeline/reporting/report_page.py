"""The report as one offline page, its style and script inline."""

from __future__ import annotations

from importlib.resources import files

from pipeline.reporting.channel_contrast import shown_channels
from pipeline.reporting.html_builder import Html, tag
from pipeline.reporting.html_document import document
from pipeline.reporting.run_record import RunRecord, set_of
from pipeline.reporting.sections.case_images import CaseImage, case_pictures
from pipeline.reporting.sections.case_table import case_table
from pipeline.reporting.sections.confusion_section import confusion_section
from pipeline.reporting.sections.data_section import data_section
from pipeline.reporting.sections.failures_section import failures, failures_section
from pipeline.reporting.sections.headline import headline, summary_sentence
from pipeline.reporting.sections.plan_section import plan_section
from pipeline.reporting.sections.postprocessing_section import postprocessing_section
from pipeline.reporting.sections.provenance_section import provenance_section
from pipeline.reporting.sections.results_section import results_section
from pipeline.reporting.sections.spread_section import spread_section
from pipeline.reporting.sections.training_section import training_section
from pipeline.reporting.sections.volumes_section import volumes_section


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


def _sections(run: RunRecord, worst: CaseImage, median: CaseImage) -> dict[str, tuple[str, Html]]:
    results = run.results
    sets = {str(entry["id"]): set_of(run, entry) for entry in run.inferred}
    shown = shown_channels(run, [*worst, *median])
    sections = {
        "results": ("Results", results_section(run, sets)),
        "spread": ("Spread over cases", spread_section(results)),
        "worst": ("Worst cases", case_pictures(run, "worst", worst, shown, sets)),
        "median": ("Median cases", case_pictures(run, "median", median, shown, sets)),
        "agreement": ("Volumes", volumes_section(results)),
        "confusion": ("Confusion", confusion_section(results)),
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


def _shipped(name: str) -> str:
    return files("pipeline.reporting").joinpath(name).read_text(encoding="utf-8")
