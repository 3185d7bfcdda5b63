"""Confusion between structures as a heat map: how much of each reference structure was given which name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.html_builder import Html, tag

_SHADES = 9


def shares_of_reference(voxels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (reference) of a confusion matrix as shares of their sum; NaN in rows without a voxel."""
    totals = voxels.sum(axis=1, keepdims=True)
    return np.divide(voxels, totals, np.full(voxels.shape, np.nan), where=totals > 0)


def confusion_table(labels: Sequence[str], voxels: Sequence[Sequence[int]]) -> Html:
    """Rows are reference, columns prediction, cells shares of the reference in per cent; labels[0] is background.

    The background's row gives voxels instead: its own cell is nearly everything and would say nothing.
    """
    counts = np.asarray(voxels, float)
    shares = shares_of_reference(counts)
    head = tag("tr", tag("th", "reference ↓ prediction →", scope="col"), [tag("th", n, scope="col") for n in labels])
    rows = []
    for i, name in enumerate(labels):
        cells = [
            _background_cell(counts[i, j], j) if i == 0 else _cell(shares[i, j], i == j) for j in range(len(labels))
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), cells))
    return tag("table", tag("thead", head), tag("tbody", rows), class_="heat")


def _background_cell(voxels: float, column: int) -> Html:
    return tag("td", "" if column == 0 else f"{voxels:,.0f} voxels".replace(",", " "), class_="none")


def _cell(share: float, own: bool) -> Html:
    if np.isnan(share):
        return tag("td", "–", class_="none")
    shade = 0 if share < 0.0005 else 1 + min(int(share * _SHADES), _SHADES - 1)
    return tag("td", f"{100 * share:.1f} %", class_=f"{'own' if own else 'off'} h{shade}")
