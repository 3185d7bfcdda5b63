"""Contours of masks as SVG paths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.charts.svg_axes import coordinate
from pipeline.reporting.slices import Slice

_COARSEST = 16


def contour_path(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> str:
    """The outline of a mask (rows, columns) as an SVG path in mm; voxel (0, 0) covers the corner at the origin."""
    from contourpy import contour_generator

    if not mask.any():
        return ""
    lines = contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5)
    pieces = []
    for line in lines:
        xy = (np.asarray(line) - 0.5) * (spacing_mm[1], spacing_mm[0])
        pieces.append("M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in xy[:-1]) + "Z")
    return "".join(pieces)


def structure_contours(
    one: Slice, structures: Mapping[str, tuple[int, ...]], most_bytes: int
) -> list[tuple[str, str, str]]:
    """Structure, role and path of each contour. Where all would take more than `most_bytes` (a prediction of speckles
    is a megabyte of corners), the longest are drawn around blocks of 2, 4, ... voxels that hold some of it."""
    masks = {
        (name, role): (np.isin(labels, values), 1)
        for role, labels in (("reference", one.reference), ("prediction", one.prediction))
        for name, values in structures.items()
    }
    paths = {key: contour_path(mask, one.pixel_mm) for key, (mask, _) in masks.items()}
    while sum(map(len, paths.values())) > most_bytes:
        longest = max(paths, key=lambda key: len(paths[key]))
        mask, step = masks[longest]
        if step >= _COARSEST:
            break
        masks[longest] = mask, step = _any_of_four(mask), 2 * step
        paths[longest] = contour_path(mask, (step * one.pixel_mm[0], step * one.pixel_mm[1]))
    return [(name, role, path) for (name, role), path in paths.items() if path]


def _any_of_four(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = mask.shape
    padded = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    return padded[::2, ::2] | padded[1::2, ::2] | padded[::2, 1::2] | padded[1::2, 1::2]
