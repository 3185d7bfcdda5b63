"""Lesion by lesion: how many connected components of a reference were found, missed, and invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label

Connectivity = Literal[6, 18, 26]


@dataclass(frozen=True)
class LesionCounts:
    """found: reference lesions with at least one predicted voxel. missed: those with none. n_pred: predicted lesions.

    false: predicted lesions with no voxel in the reference. One predicted lesion may find several of the reference.
    """

    found: int
    missed: int
    false: int
    n_pred: int

    @property
    def n_ref(self) -> int:
        """Lesions of the reference."""
        return self.found + self.missed

    @property
    def f1(self) -> float | None:
        """2·found / (2·found + false + missed), as in ISLES and Metrics Reloaded; None without any lesion."""
        whole = 2 * self.found + self.false + self.missed
        return 2 * self.found / whole if whole else None


def lesion_counts(pred: NDArray[np.bool_], ref: NDArray[np.bool_], connectivity: Connectivity = 26) -> LesionCounts:
    """Compares the components of two boolean masks of one shape (3D); voxels join over faces (6), edges, or corners."""
    structure = generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    n_ref, touched_ref = _components(ref, pred, structure)
    n_pred, touched_pred = _components(pred, ref, structure)
    return LesionCounts(found=touched_ref, missed=n_ref - touched_ref, false=n_pred - touched_pred, n_pred=n_pred)


def _components(mask: NDArray[np.bool_], other: NDArray[np.bool_], structure: NDArray[np.bool_]) -> tuple[int, int]:
    """The number of components of `mask`, and how many of them share a voxel with `other`."""
    components, count = label(mask, structure)
    touched = np.zeros(count + 1, bool)
    touched[components[other]] = True
    return count, int(touched[1:].sum())
