"""The plan with its reasons."""

from __future__ import annotations

from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.run_record import RunRecord


def plan_section(run: RunRecord) -> Html:
    """Every planned value with its reason."""
    values = run.plan.model_dump(mode="json", exclude={"reasons", "predicted", "structures"})
    values["channels"] = [
        f"{channel.name}: {channel.scheme}"
        + (f" [{number(channel.lower)}, {number(channel.upper)}]" if channel.lower is not None else "")
        for channel in run.plan.channels
    ]
    for key in ("spacing_mm", "patch_size"):
        values[key] = " × ".join(map(_shown, values[key]))
    rows = [
        [key, _shown(value), run.plan.reasons.get(key, "")]
        for key, value in values.items()
        if value not in (None, (), [])
    ]
    predicted = [[key, number(value)] for key, value in run.plan.predicted.items()]
    parts = [table(["what", "value", "because"], rows, "words plan")]
    if predicted:
        parts += [tag("h3", "Predicted before the start"), table(["what", "value"], predicted, "facts")]
    return join(parts)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join("×".join(map(_shown, v)) if isinstance(v, (list, tuple)) else _shown(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
