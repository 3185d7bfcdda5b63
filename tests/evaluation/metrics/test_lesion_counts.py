"""Lesions counted on drawings that can be checked by eye."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.metrics.lesion_counts import LesionCounts, lesion_counts


def drawn(*rows: str) -> np.ndarray:
    """A plane of # and . as a volume of one slice."""
    return np.array([[c == "#" for c in row] for row in rows])[None]


def test_found_missed_and_false() -> None:
    ref = drawn("##....#..#",
                "##....#...")  # fmt: skip
    pred = drawn(".#..#.....",
                 ".#..#...#.")  # fmt: skip
    # one found; the bar is missed; the pixel at the end is touched by a corner only, which is no common voxel
    counts = lesion_counts(pred, ref)
    assert counts == LesionCounts(found=1, missed=2, false=2, n_pred=3)
    assert counts.f1 == pytest.approx(2 / (2 + 2 + 2))


def test_one_prediction_over_two_lesions_finds_both() -> None:
    counts = lesion_counts(drawn("#####"), drawn("#...#"))
    assert counts == LesionCounts(found=2, missed=0, false=0, n_pred=1)
    assert counts.f1 == 1


def test_connectivity() -> None:
    diagonal = drawn("#.", ".#")
    assert lesion_counts(diagonal, diagonal, connectivity=6).n_ref == 2
    assert lesion_counts(diagonal, diagonal, connectivity=18).n_ref == 1
    corners = np.zeros((2, 2, 2), bool)
    corners[0, 0, 0] = corners[1, 1, 1] = True
    assert lesion_counts(corners, corners, connectivity=18).n_ref == 2
    assert lesion_counts(corners, corners, connectivity=26).n_ref == 1


def test_no_lesion_anywhere_has_no_f1() -> None:
    assert lesion_counts(drawn("..."), drawn("...")).f1 is None
    assert lesion_counts(drawn("#.."), drawn("...")) == LesionCounts(found=0, missed=0, false=1, n_pred=1)
    assert lesion_counts(drawn("#.."), drawn("...")).f1 == 0
