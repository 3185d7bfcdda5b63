"""Failed cases with their reasons."""

from __future__ import annotations

from pipeline.reporting.html_builder import Html, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.run_record import RunRecord


def failures(run: RunRecord) -> dict[str, str]:
    """Every case that did not get through, with the reason: at loading, inference or scoring."""
    found = {str(entry["case"]): str(entry["reason"]) for entry in run.results.summary.get("not_scored", ())}
    for stage in run.stages:
        found |= {case: f"failed in stage {stage.name}" for case in stage.failed_cases if case not in found}
    found |= {
        str(e["id"]): str(e.get("message") or "no prediction") for e in run.inferred if e.get("prediction") is None
    }
    return dict(sorted(found.items()))


def failures_section(run: RunRecord) -> Html:
    """A table of what failed and why, or a sentence that nothing did."""
    found = failures(run)
    if not found:
        return tag("p", "None: every case was segmented, and every one with a reference was scored.", class_="good")
    return table(["case", "reason"], found.items(), "words")
