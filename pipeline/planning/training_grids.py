"""Grids of the training cases in RAS+, as large as the planned crop leaves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dataset.cases_json import Case
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid


def canonical_grids(cases: Sequence[Case], crop: str = "none") -> list[Grid]:
    """Each case's grid with RAS+ axes; with crop `nonzero` as large as what that keeps of it (its origin aside)."""
    shapes = [(case.nonzero_shape if crop == "nonzero" else None) or case.shape for case in cases]
    return [to_canonical(Grid(shape, np.array(case.affine)))[1] for case, shape in zip(cases, shapes, strict=True)]
