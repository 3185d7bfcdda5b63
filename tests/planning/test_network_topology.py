"""Spacing, patch and topology: on paper for known data sets, and laws for all."""

from __future__ import annotations

from pipeline.planning.network_topology import topology
from pipeline.planning.patch_size import open_patch, rounded_patch


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
