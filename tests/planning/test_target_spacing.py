"""Target spacing and median shape, from spacings that can be checked by hand."""

from __future__ import annotations

import pytest

from pipeline.planning.target_spacing import median_shape, target_spacing
from pipeline.planning.training_grids import canonical_grids
from tests.planning.loaded_cases import make_case


def test_spacing_is_the_median_along_anatomical_axes() -> None:
    # The same scan stored along other axes counts along the same anatomical ones.
    cases = [make_case(0, (10, 20, 30), (1.0, 2.0, 2.5)), make_case(1, (30, 10, 20), (2.5, 1.0, 2.0), axes=(2, 0, 1))]
    grids = canonical_grids(cases)
    assert [grid.shape for grid in grids] == [(10, 20, 30), (10, 20, 30)]
    assert target_spacing(grids)[0] == (1.0, 2.0, 2.5)


def test_thick_slices_take_the_10th_percentile_but_never_under_the_pixels() -> None:
    grids = canonical_grids([make_case(i, (9, 9, 9), (1.0, 1.0, z)) for i, z in enumerate((2.0, 4.0, 5.0, 5.0, 6.0))])
    spacing_mm, reason = target_spacing(grids)
    assert spacing_mm == (1.0, 1.0, pytest.approx(2.8)) and "10th percentile" in reason
    grids = canonical_grids([make_case(i, (9, 9, 9), (1.0, 1.0, z)) for i, z in enumerate((0.2, 5.0, 5.0))])
    assert target_spacing(grids)[0][2] >= 1.0


def test_median_shape_is_on_the_planned_grid() -> None:
    grids = canonical_grids([make_case(i, (10, 10, n), (1.0, 1.0, 2.0)) for i, n in enumerate((8, 10, 12))])
    assert median_shape(grids, (2.0, 1.0, 1.0)) == (5, 10, 20)
