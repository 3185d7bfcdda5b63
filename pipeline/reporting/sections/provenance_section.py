"""Provenance: stages with digests, weights, software, machine and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.terminal import format_duration
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.run_record import RunRecord, StageRecord


def provenance_section(run: RunRecord) -> Html:
    """Stages with digests, weights, software and machine, and how to make it all again."""
    rows = [_stage_row(stage) for stage in run.stages]
    weights = [
        [name, _hash(digest, 64)]
        for stage in run.stages
        if stage.name == "train"
        for name, digest in stage.outputs.items()
        if name.endswith("last.safetensors")
    ]
    machine = next((stage.timing for stage in reversed(run.stages) if stage.timing.get("packages")), {})
    return join(
        [
            table(["stage", "version", "took", "peak memory", "finished (UTC)", "request", "outputs"], rows, "facts"),
            [tag("h3", "Weights (sha256)"), table(["file", "digest"], weights, "facts")] if weights else None,
            tag("h3", "Software and machine"),
            table(["what", "version"], _machine_rows(machine, run), "facts"),
            tag("h3", "To make it again"),
            tag("p", "Save the configuration below as config.yaml, put back the paths of manifest and data, and run:"),
            tag("pre", tag("code", "segpipe run config.yaml --set data.manifest=MANIFEST --set data.root=DATA")),
            tag("details", tag("summary", "Resolved configuration"), tag("pre", tag("code", run.config))),
        ]
    )


def _stage_row(stage: StageRecord) -> list[object]:
    timing = stage.timing
    memory = timing.get("peak_memory_gib")
    return [
        stage.name,
        stage.version,
        format_duration(timing["seconds"]) if "seconds" in timing else "–",
        f"{memory:.2f} GiB" if memory is not None else "–",
        str(timing.get("finished", "–"))[:16].replace("T", " "),
        _hash(stage.request),
        _hash(stage.output),
    ]


def _hash(digest: str | None, characters: int = 12) -> Html:
    return tag("code", (digest or "–")[:characters], title=digest, class_="hash")


def _machine_rows(timing: Mapping[str, Any], run: RunRecord) -> list[list[object]]:
    rows: list[list[object]] = [["seed", run.seed], ["source revision", timing.get("git_revision") or "not a checkout"]]
    rows += [["Python", timing.get("python", "–")], *([name, v] for name, v in timing.get("packages", {}).items())]
    rows += [["platform", timing.get("platform", "–")], ["cores", timing.get("cores", "–")]]
    rows += [["device", run.plan.device], ["precision", run.plan.precision]]
    return rows
