"""Contrast of each channel: how well structures are seen in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from pipeline.reporting.intensity_window import Window
from pipeline.reporting.overlays import OverlaySettings, contour_bytes_for, pixels_for
from pipeline.reporting.run_record import RunRecord
from pipeline.reporting.sections.case_images import CaseImage
from pipeline.reporting.slices import PLANES, Slices

_MOST_CHANNELS = 4

_RING_PIXELS = 5


def contrasts(slices: Slices, structures: Mapping[str, tuple[int, ...]]) -> NDArray[np.float64]:
    """How well the structures are seen in each channel (C,): 0 not at all, 1 without any overlap of intensities.

    A structure's pixels against a ring of 5 pixels around it: |2·AUC − 1|, so that neither units nor the direction of
    the contrast matter. The mean over planes and structures; zeros where no structure is in any of the slices.
    """
    found = []
    for one in slices.planes:
        for values in structures.values():
            inside = np.isin(one.reference, values)
            ring = binary_dilation(inside, iterations=_RING_PIXELS) & ~inside
            if inside.any() and ring.any():
                found.append([separability(channel[inside], channel[ring]) for channel in one.image])
    return np.mean(found, axis=0) if found else np.zeros(len(slices.ranges))


def separability(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """|2·AUC − 1| of two samples: 0 where one is as often above the other as below, 1 where it is on one side of it."""
    inside, ordered = inside[np.isfinite(inside)], np.sort(outside[np.isfinite(outside)])
    if not len(inside) or not len(ordered):
        return 0.0
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(abs(below.mean() / len(ordered) - 1))


def shown_channels(run: RunRecord, pictured: CaseImage) -> OverlaySettings:
    """At most four channels, those in which the structures stand out best over all pictured cases, best first."""
    count = len(run.plan.channels)
    scores = [contrasts(slices, run.cases.structures) for _, slices in pictured] if count > 1 else []
    mean = np.mean(scores, axis=0) if scores else np.zeros(count)
    channels = np.argsort(-mean, kind="stable")[:_MOST_CHANNELS].tolist()
    windows = tuple(Window.planned(run.plan.channels[channel]) for channel in channels)
    planes = len(pictured) * len(PLANES)
    return OverlaySettings(tuple(channels), windows, pixels_for(planes * len(channels)), contour_bytes_for(planes))
