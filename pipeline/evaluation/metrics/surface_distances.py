"""Distances between the surfaces of two masks, in mm, and the figures that are made of them.

`surfel`, the default: a surface is a set of surface elements, each weighted with its area (`metrics.surfels`); so a
figure hardly depends on how the surface lies to the voxel grid. It agrees with google-deepmind's surface-distance.
`voxel`: a surface is the set of mask voxels with a face neighbour outside, each counting one, percentiles are
interpolated. It agrees with MONAI's HausdorffDistanceMetric, SurfaceDistanceMetric and SurfaceDiceMetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree

from pipeline.evaluation.metrics.surfel_areas import neighbour_codes, surfel_areas

Element = Literal["surfel", "voxel"]

_ROUNDING = 1e-6
"""A spacing computed from an affine is off in its last digits; a distance that equals the tolerance but for that
counts as within it."""

VOXELS_PER_QUERY = 12
"""Looking a point up in a search tree costs as much as so many voxels of a distance transform (more where surfaces lie
far apart): smooth masks need few look-ups, scattered ones are faster by the transform."""


@dataclass(frozen=True)
class DirectedDistances:
    """For each element of one surface its distance to the nearest of the other, and its weight."""

    distances_mm: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceDistances:
    """Both directions between two surfaces, neither of them empty."""

    pred_to_ref: DirectedDistances
    ref_to_pred: DirectedDistances
    element: Element

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """The larger of the two directed distances that `percent` of a surface stay within (100: the maximum)."""
        return max(self._percentile(side, percent) for side in (self.pred_to_ref, self.ref_to_pred))

    def average_mm(self) -> float:
        """The weighted mean distance over both surfaces together (ASSD)."""
        sides = (self.pred_to_ref, self.ref_to_pred)
        total = sum(float(side.weights @ side.distances_mm) for side in sides)
        return total / sum(float(side.weights.sum()) for side in sides)

    def dice(self, tolerance_mm: float) -> float:
        """The share of both surfaces that lies within `tolerance_mm` of the other one (NSD, surface Dice)."""
        limit = tolerance_mm * (1 + _ROUNDING)
        sides = (self.pred_to_ref, self.ref_to_pred)
        near = sum(float(side.weights[side.distances_mm <= limit].sum()) for side in sides)
        return near / sum(float(side.weights.sum()) for side in sides)

    def _percentile(self, side: DirectedDistances, percent: float) -> float:
        if percent >= 100:
            return float(side.distances_mm.max())
        if self.element == "voxel":
            return float(np.percentile(side.distances_mm, percent))
        order = np.argsort(side.distances_mm, kind="stable")
        reached = np.cumsum(side.weights[order])
        at = np.searchsorted(reached / reached[-1], percent / 100)
        return float(side.distances_mm[order[min(int(at), len(order) - 1)]])


def surface_distances(
    pred: NDArray[np.bool_],
    ref: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    element: Element = "surfel",
    voxels_per_query: float = VOXELS_PER_QUERY,
) -> SurfaceDistances | None:
    """Distances between the surfaces of two boolean masks of one shape, in two or three dimensions.

    None where a mask is empty: a distance to nothing is not defined. Cut both masks to their common bounding box
    first; what lies outside costs time and changes nothing. The masks' own edge is surface where they touch it.
    voxels_per_query: see VOXELS_PER_QUERY; it changes the time alone.
    """
    points_pred, weights_pred = _surface(pred, spacing_mm, element)
    points_ref, weights_ref = _surface(ref, spacing_mm, element)
    if not len(points_pred) or not len(points_ref):
        return None
    box = tuple(size + 1 for size in ref.shape)
    to_ref = _nearest_mm(points_pred, points_ref, box, spacing_mm, voxels_per_query)
    to_pred = _nearest_mm(points_ref, points_pred, box, spacing_mm, voxels_per_query)
    return SurfaceDistances(DirectedDistances(to_ref, weights_pred), DirectedDistances(to_pred, weights_ref), element)


def _surface(
    mask: NDArray[np.bool_], spacing_mm: tuple[float, ...], element: Element
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Grid positions (N, ndim) of a mask's surface elements and their weights (N,)."""
    if element == "voxel":
        points = np.argwhere(mask & ~binary_erosion(mask))
        return points, np.ones(len(points))
    codes = neighbour_codes(mask)
    border = (codes + np.uint8(1)) > 1 if mask.ndim == 3 else (codes > 0) & (codes < 15)
    flat = np.flatnonzero(border)
    points = np.stack(np.unravel_index(flat, codes.shape), axis=1)
    return points, surfel_areas(tuple(map(float, spacing_mm)))[codes.reshape(-1)[flat]]


def _nearest_mm(
    points: NDArray[np.intp],
    others: NDArray[np.intp],
    box: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    voxels_per_query: float,
) -> NDArray[np.float64]:
    """The distance from each point to the nearest of `others`; all points lie in `box`.

    Most points of a good prediction lie on the reference's surface: they are found on a bitmap, and only the rest
    is looked up. Distances are computed from whole voxel steps, so that equal steps give equal distances.
    """
    free = np.ones(box, bool)
    free[tuple(others.T)] = False
    away = np.flatnonzero(free[tuple(points.T)])
    distances = np.zeros(len(points))
    if not len(away):
        return distances
    start, spacing = points[away], np.asarray(spacing_mm)
    if len(start) * voxels_per_query + len(others) < free.size:
        tree = KDTree(others * spacing, balanced_tree=False, compact_nodes=False)
        nearest = others[tree.query(start * spacing)[1]]
    else:
        indices = distance_transform_edt(free, sampling=spacing, return_distances=False, return_indices=True)
        nearest = indices[(slice(None), *start.T)].T
    distances[away] = np.sqrt(((np.abs(start - nearest) * spacing) ** 2).sum(axis=1))
    return distances
