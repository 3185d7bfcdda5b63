"""The training: curves, times and drawn patches."""

from __future__ import annotations

import base64

from pipeline.base.terminal import format_duration
from pipeline.reporting.charts.training_curves import dice_curves, loss_curves, rate_curves, time_shares
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.run_record import RunRecord


def training_section(run: RunRecord) -> Html:
    """Curves, and where the time went."""
    curves = tag("div", loss_curves(run.folds), dice_curves(run.folds), rate_curves(run.folds), class_="gallery")
    notes = [
        tag(
            "p",
            f"Fold {fold.name}: best validation at step {fold.best_step}; packaged and scored are the last weights.",
        )
        for fold in run.folds
        if fold.best_step is not None
    ]
    shares = time_shares(run.folds)
    total = sum(seconds for _, seconds in shares)
    if total > 0:
        rows = [[what, format_duration(seconds), f"{100 * seconds / total:.0f} %"] for what, seconds in shares]
        notes.append(table(["time went into", "", "share"], rows, "facts"))
    return join([curves, notes, _preview(run.preview)])


def _preview(png: bytes) -> Html:
    if not png:
        return Html("")
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return join([tag("h3", "Patches drawn for training"), tag("figure", tag("img", src=source, alt="drawn patches"))])
