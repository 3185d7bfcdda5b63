"""Spacing, patch and topology: on paper for known data sets, and laws for all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning.network_topology import (
    canonical_grids,
    median_shape,
    open_patch,
    rounded_patch,
    target_spacing,
    topology,
)
from tests.planning.loaded_cases import make_case

shapes = st.tuples(*[st.integers(4, 300)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)


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


def test_hippocampus_gets_nnunets_patch_and_depth() -> None:
    """peers.md: nnU-Net plans 40×56×40 and four levels for a median shape of 35×50×36 at 1 mm."""
    shape, spacing_mm = (35, 50, 36), (1.0, 1.0, 1.0)
    wanted = open_patch(shape, spacing_mm, 2**17)
    found = topology(wanted, spacing_mm)
    assert len(found.strides) == 4 and found.divisor == (8, 8, 8)
    assert set(found.kernel_size) == {(3, 3, 3)}
    assert rounded_patch(wanted, shape, found.divisor) == (40, 56, 40)


def test_thick_slices_are_halved_later_and_not_mixed_before() -> None:
    found = topology((128, 128, 32), (0.8, 0.8, 4.0))
    # 0.8 and 4: two halvings in plane bring it to 3.2, where 4 is no longer twice as thick.
    assert found.strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert found.kernel_size[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))


@given(shape=shapes, spacing_mm=spacings, voxels=st.sampled_from([2**13, 2**17, 2**21]))
@settings(max_examples=150, deadline=None)
def test_a_patch_suits_its_network(shape: tuple, spacing_mm: tuple, voxels: int) -> None:
    wanted = open_patch(shape, spacing_mm, voxels)
    assert (wanted <= np.array(shape) + 1e-6).all() and wanted.prod() <= max(voxels, 1) * 1.001
    found = topology(wanted, spacing_mm)
    patch = rounded_patch(wanted, shape, found.divisor)
    assert all(size % step == 0 for size, step in zip(patch, found.divisor, strict=True))
    assert 3 <= len(found.strides) == len(found.kernel_size) <= 6 and found.strides[0] == (1, 1, 1)
    assert math.prod(n // s for n, s in zip(patch, found.divisor, strict=True)) >= 2
    for size, n, step in zip(patch, shape, found.divisor, strict=True):
        assert size < n + 2 * step  # never more than what rounding asks for


def test_a_patch_is_a_cube_in_mm_where_the_image_is_large() -> None:
    patch = open_patch((512, 512, 200), (0.7, 0.7, 2.8), 2**18)
    assert np.allclose(patch * (0.7, 0.7, 2.8), (patch * (0.7, 0.7, 2.8))[0], rtol=1e-3)


def test_median_shape_is_on_the_planned_grid() -> None:
    grids = canonical_grids([make_case(i, (10, 10, n), (1.0, 1.0, 2.0)) for i, n in enumerate((8, 10, 12))])
    assert median_shape(grids, (2.0, 1.0, 1.0)) == (5, 10, 20)
