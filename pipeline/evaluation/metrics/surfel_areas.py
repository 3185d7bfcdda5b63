"""Surface elements: the piece of surface that lies between the voxel centres of each 2×2×2 neighbourhood.

The corners of a neighbourhood are inside or outside, which gives a code of 8 bits (4 in a plane). The surface cuts
every edge between an inside and an outside corner in its middle, as marching cubes does. Between these points it is:

- drawn around whichever side has fewer corners, so that a mask and its complement have the same surface,
- for each set of corners that hang together along edges, the part of the convex hull of corners and cut points that
  does not lie on the cube's faces,
- for a chain of four corners, where both sides have four and no hull fits both, marching cubes' triangles.

So areas do not depend on the orientation of the axes. They equal those of the table in google-deepmind's
surface-distance for every code and spacing.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Corner = tuple[int, ...]


@lru_cache(maxsize=256)
def surfel_areas(spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """The area in mm² (in a plane: the length in mm) of the surface in a neighbourhood, by its code.

    `spacing_mm` has one number an axis, two or three. The corner at offset (i, j, k) is bit 128 >> (4i + 2j + k).
    """
    ndim = len(spacing_mm)
    codes, facets = _facets(ndim)
    edges = (facets[:, 1:] - facets[:, :1]) * np.asarray(spacing_mm)
    gram = edges @ edges.transpose(0, 2, 1)
    sizes = np.sqrt(np.maximum(np.linalg.det(gram), 0)) / factorial(ndim - 1)
    areas: NDArray[np.float64] = np.zeros(2 ** (2**ndim))
    np.add.at(areas, codes, sizes)
    areas.setflags(write=False)
    return areas


def neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every 2×2×2 (in a plane 2×2) neighbourhood of a mask, outside counting as empty.

    The result is one longer along each axis; element i lies between voxels i − 1 and i.
    """
    codes = np.pad(mask.view(np.uint8) if mask.dtype == bool else mask.astype(np.uint8), 1)
    for bits, axis in enumerate(reversed(range(mask.ndim))):
        lower = codes[(slice(None),) * axis + (slice(None, -1),)]
        upper = codes[(slice(None),) * axis + (slice(1, None),)]
        codes = (lower << np.uint8(1 << bits)) | upper
    return codes


@lru_cache(maxsize=2)
def _facets(ndim: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Triangles (in a plane: segments) of every code: the codes (F,), and vertices (F, ndim, ndim) in a unit cube."""
    corners = list(product((0, 1), repeat=ndim))
    codes: list[int] = []
    facets: list[NDArray[np.float64]] = []
    for code in range(2 ** len(corners)):
        inside = {corner for bit, corner in enumerate(reversed(corners)) if code >> bit & 1}
        fewer = inside if 2 * len(inside) <= len(corners) else set(corners) - inside
        for part in _connected(fewer):
            found = _chain_facets(part) if _is_chain(part) else _hull_facets(part)
            codes += [code] * len(found)
            facets += found
    return np.array(codes), np.array(facets)


def _hull_facets(part: list[Corner]) -> list[NDArray[np.float64]]:
    """Facets of the hull of corners and cut points, without those on the faces of the cube."""
    points = np.array([*part, *(point for corner in part for point in _cut_points(corner, part))], float)
    hull = ConvexHull(np.unique(points, axis=0))
    facets = hull.points[hull.simplices]
    flat = (facets == facets[:, :1]).all(axis=1) & np.isin(facets[:, 0], (0, 1))
    return list(facets[~flat.any(axis=1)])


def _chain_facets(part: list[Corner]) -> list[NDArray[np.float64]]:
    """Marching cubes' four triangles for corners p0-p1-p2-p3 in a chain; p1 and p2 have one cut point, the ends two.

    The six cut points in a ring: of p1, two of p0, of p2, two of p3.
    """
    first = next(corner for corner in part if len(_neighbours(corner, part)) == 1)
    second = _neighbours(first, part)[0]
    third = next(corner for corner in _neighbours(second, part) if corner != first)
    last = next(corner for corner in _neighbours(third, part) if corner != second)
    (of_second,), (of_third,) = _cut_points(second, part), _cut_points(third, part)
    near_first, far_first = sorted(_cut_points(first, part), key=lambda point: not _share_face(point, of_third))
    near_last, far_last = sorted(_cut_points(last, part), key=lambda point: not _share_face(point, of_third))
    triangles = [
        (near_first, near_last, of_second),
        (far_first, near_first, of_second),
        (near_first, of_third, near_last),
        (near_last, far_last, of_second),
    ]
    return [np.array(triangle) for triangle in triangles]


def _is_chain(part: list[Corner]) -> bool:
    return len(part) == 4 and sorted(len(_neighbours(corner, part)) for corner in part) == [1, 1, 2, 2]


def _connected(corners: set[Corner]) -> list[list[Corner]]:
    """The sets of corners that hang together along edges."""
    left, parts = sorted(corners), list[list[Corner]]()
    while left:
        part = [left.pop(0)]
        for corner in part:  # grows while it is walked
            part += (joined := _neighbours(corner, left))
            left = [other for other in left if other not in joined]
        parts.append(part)
    return parts


def _neighbours(corner: Corner, others: list[Corner]) -> list[Corner]:
    return [other for other in others if sum(a != b for a, b in zip(corner, other, strict=True)) == 1]


def _cut_points(corner: Corner, part: list[Corner]) -> list[tuple[float, ...]]:
    """The middles of the edges from a corner out of its part."""
    ends = [tuple(1 - c if a == axis else c for a, c in enumerate(corner)) for axis in range(len(corner))]
    return [tuple((a + b) / 2 for a, b in zip(corner, end, strict=True)) for end in ends if end not in part]


def _share_face(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return any(a == b and a in (0, 1) for a, b in zip(one, other, strict=True))
