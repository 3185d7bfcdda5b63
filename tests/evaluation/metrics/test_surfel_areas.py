"""The areas of surface elements: facts that can be checked on paper, laws, and the published table."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from pipeline.evaluation.metrics.surfel_areas import neighbour_codes, surfel_areas

CORNERS = list(product((0, 1), repeat=3))
SPACING_MM = (1.0, 1.37, 2.11)


def code(*corners: tuple[int, int, int]) -> int:
    return sum(128 >> (4 * i + 2 * j + k) for i, j, k in corners)


def test_areas_on_paper() -> None:
    areas = surfel_areas((1.0, 1.0, 1.0))
    corner = np.sqrt(3) / 8  # an equilateral triangle with sides of half a diagonal, sqrt(1/2)
    assert areas[0] == areas[255] == 0
    assert areas[code((0, 0, 0))] == pytest.approx(corner)
    assert areas[code((0, 0, 0), (1, 1, 1))] == pytest.approx(2 * corner)
    assert areas[code((0, 0, 0), (0, 0, 1))] == pytest.approx(np.sqrt(1 / 2))  # a strip of sqrt(1/2) by 1
    assert areas[code(*(c for c in CORNERS if c[0] == 0))] == pytest.approx(1)
    star = code((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert areas[star] == pytest.approx(3 * np.sqrt(3) / 2 / 2)  # a regular hexagon with sides of sqrt(1/2)
    bend = code((0, 0, 0), (0, 1, 0), (0, 0, 1))
    assert areas[bend] == pytest.approx(1 / 2 + 3 * corner)  # half a face, and a trapezoid of three corner triangles


def test_a_flat_wall_has_the_area_of_its_face() -> None:
    """Whatever the spacing: a wall across axis a has the product of the other two spacings."""
    areas = surfel_areas(SPACING_MM)
    for axis in range(3):
        wall = code(*(c for c in CORNERS if c[axis] == 1))
        assert areas[wall] == pytest.approx(np.prod(SPACING_MM) / SPACING_MM[axis])


def test_a_mask_and_its_complement_have_one_surface() -> None:
    areas = surfel_areas(SPACING_MM)
    np.testing.assert_allclose(areas, areas[::-1])


@pytest.mark.parametrize("order", permutations(range(3)))
@pytest.mark.parametrize("flips", product((0, 1), repeat=3))
def test_areas_do_not_depend_on_the_orientation_of_axes(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    areas = surfel_areas(SPACING_MM)
    turned = surfel_areas(tuple(SPACING_MM[axis] for axis in order))
    for value in range(256):
        inside = [corner for corner in CORNERS if value & code(corner)]
        moved = [tuple(corner[axis] ^ flip for axis, flip in zip(order, flips, strict=True)) for corner in inside]
        assert turned[code(*moved)] == pytest.approx(areas[value])


def test_codes_of_a_single_voxel() -> None:
    """Each of the eight neighbourhoods around a voxel holds it in the opposite corner."""
    found = neighbour_codes(np.ones((1, 1, 1), bool))
    assert found.shape == (2, 2, 2)
    for i, j, k in CORNERS:
        assert found[i, j, k] == code((1 - i, 1 - j, 1 - k))


def test_the_surface_of_a_large_ball_is_a_twelfth_too_large() -> None:
    """What marching cubes makes of a ball without grey values: steps, whose area exceeds the ball's by some 8 %."""
    axes = [np.arange(-35, 36)] * 3
    ball = sum(x**2 for x in np.meshgrid(*axes, indexing="ij")) <= 30**2
    area = surfel_areas((1.0, 1.0, 1.0))[neighbour_codes(ball)].sum()
    assert area / (4 * np.pi * 30**2) == pytest.approx(13 / 12, abs=0.01)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM, (3.0, 0.4, 7.0)])
def test_areas_equal_the_table_of_surface_distance(spacing_mm: tuple[float, float, float]) -> None:
    tables = pytest.importorskip("surface_distance.lookup_tables", reason="pip install surface-distance")
    np.testing.assert_allclose(surfel_areas(spacing_mm), tables.create_table_neighbour_code_to_surface_area(spacing_mm))
    plane = spacing_mm[:2]
    np.testing.assert_allclose(surfel_areas(plane), tables.create_table_neighbour_code_to_contour_length(plane))
