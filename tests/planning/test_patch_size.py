"""Patch sizes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning.network_topology import topology
from pipeline.planning.patch_size import open_patch, rounded_patch

shapes = st.tuples(*[st.integers(4, 300)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)


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
