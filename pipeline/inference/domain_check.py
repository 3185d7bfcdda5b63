"""The domain guard: whether a scan looks like those that the model was trained on.

Axis order and flips are no difference, since every scan is brought to RAS+; what they are not known from is. Limits are
wide on purpose: they catch a wrong modality, a wrong unit, a lost header or another part of the body, not a fine shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import ChannelPlan, Plan

SPACING_FACTOR = 1.5
"""A voxel size may lie this factor outside the range of the training data."""
EXTENT_FACTOR = 2.0
"""A field of view may lie this factor outside the range of the training data."""
TILT_SLACK_DEGREES = 15.0
"""Oblique scans are not rotated: this far beyond the most tilted training scan, axes are not what the network knows."""
_ABSOLUTE_UNITS = {"CT", "PET"}
"""Modalities whose values mean the same in every scan: Hounsfield units, and standardised uptake."""
USUAL_TILT_DEGREES = 15.0
"""Of training scans, where the fingerprint does not record it."""
_MOST_VOXELS = 2_000_000


def domain_shift_reasons(image: Volume, plan: Plan, fingerprint: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence for each way in which `image` (C, X, Y, Z) is out of the training data's range; empty where none.

    `fingerprint` is the package's (`pipeline.dataset.fingerprint`); what it does not record is not compared. Sentences
    hold measures only, nothing of the file's header that could name anybody.
    """
    found = [*_orientation(image, fingerprint), *_spacing(image.grid, fingerprint), *_extent(image.grid, fingerprint)]
    for channel, voxels, known in zip(plan.channels, image.array, fingerprint.get("intensity", ()), strict=False):
        found += _intensity(channel, voxels, known)
    return tuple(found)


def _orientation(image: Volume, fingerprint: Mapping[str, Any]) -> Iterator[str]:
    nifti = image.header.get("nifti")
    if nifti is not None and nifti["qform_code"] == 0 and nifti["sform_code"] == 0:
        yield "orientation: the header states none (qform and sform codes are 0), so left and right are a guess"
    known = float(fingerprint.get("tilt_degrees_max", USUAL_TILT_DEGREES))
    if image.grid.tilt_degrees > known + TILT_SLACK_DEGREES:
        yield (
            f"orientation: axes are tilted by {image.grid.tilt_degrees:.0f}° against the body's, training data by up "
            f"to {known:.0f}°"
        )


def _spacing(grid: Grid, fingerprint: Mapping[str, Any]) -> Iterator[str]:
    known = np.sort(np.array(fingerprint.get("spacings_mm", [])).reshape(-1, 3), axis=1)
    yield from _out_of_range("spacing", np.sort(grid.spacing_mm), known, SPACING_FACTOR)


def _extent(grid: Grid, fingerprint: Mapping[str, Any]) -> Iterator[str]:
    spacings = np.array(fingerprint.get("spacings_mm", [])).reshape(-1, 3)
    known = np.sort(spacings * np.array(fingerprint.get("shapes", [])).reshape(-1, 3), axis=1)
    found = np.sort(np.array(grid.spacing_mm) * np.array(grid.shape))
    yield from _out_of_range("field of view", found, known, EXTENT_FACTOR)


def _out_of_range(what: str, found: NDArray, known: NDArray, factor: float) -> Iterator[str]:
    """Compares sorted triples, so that another order of axes is no difference."""
    if known.size == 0:
        return
    low, high = known.min(axis=0), known.max(axis=0)
    if (found < low / factor).any() or (found > high * factor).any():
        seen = f"{_triple(low)} to {_triple(high)} mm"
        yield f"{what}: {_triple(found)} mm, training data had {seen} (axes sorted by size)"


def _intensity(channel: ChannelPlan, voxels: NDArray, known: Mapping[str, float]) -> Iterator[str]:
    """Absolute values are compared where they mean something (CT, PET); else only what no rescaling could change."""
    sample = voxels.ravel()[:: max(1, voxels.size // _MOST_VOXELS)]
    low, high = (float(value) for value in np.percentile(sample, [0.5, 99.5]))
    if not high > low:
        yield f"intensity: channel {channel.name} is constant ({low:g})"
        return
    if "p005_min" not in known or "p995_max" not in known:
        return
    slack, name = 0.5 * (known["p995_max"] - known["p005_min"]), channel.name
    seen = f"training data {known['p005_min']:.4g} to {known['p995_max']:.4g}"
    absolute = channel.scheme == "ct" or channel.modality in _ABSOLUTE_UNITS
    if absolute and (low < known["p005_min"] - slack or high > known["p995_max"] + slack):
        yield f"intensity: channel {name} spans {low:.4g} to {high:.4g}, {seen}"
    elif channel.scheme == "ct" and low > known["p005_max"] + slack / 2:
        yield f"intensity: channel {name} begins at {low:.4g}, {seen}; is it in Hounsfield units?"
    elif not absolute and known["p005_min"] >= 0 and low < -0.1 * (high - low):
        yield f"intensity: channel {name} has values below 0 ({low:.4g}), {seen}; is it another modality?"


def _triple(values: NDArray) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
