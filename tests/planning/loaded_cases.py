"""Data sets as `load` records them, made up for planning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dataset.loaded_cases import Case, Cases, Channel


def make_case(
    i: int,
    shape: tuple[int, int, int],
    spacing_mm: Sequence[float],
    axes: tuple[int, int, int] = (0, 1, 2),
    intensity: dict[str, float] | None = None,
    label_voxels: dict[str, int] | None = None,
) -> Case:
    """A case whose file stores the anatomical axes in the order `axes`; shape and spacing are the file's."""
    affine = np.zeros((4, 4))
    for column, axis in enumerate(axes):
        affine[axis, column] = spacing_mm[column]
    affine[3, 3] = 1
    row = {"min": 0.0, "max": 900.0, "mean": 100.0, "std": 50.0, "p005": 1.0, "p50": 80.0, "p995": 500.0}
    return Case(
        id=f"case_{i}",
        subject=f"case_{i}",
        images=("a",),
        label="b",
        split="training",
        shape=shape,
        spacing_mm=tuple(spacing_mm),
        orientation="RAS",
        affine=tuple(tuple(float(v) for v in line) for line in affine),
        sha256={},
        intensity=(row | (intensity or {}),),
        label_voxels=label_voxels or {"a": 100, "b": 10},
    )


def make_cases(
    cases: Sequence[Case], modality: str = "MR", structures: Sequence[str] = ("a", "b"), overlapping: bool = False
) -> Cases:
    return Cases(
        dataset="made up",
        channels=(Channel(name="x", modality=modality),),
        structures={name: (i + 1,) for i, name in enumerate(structures)},
        overlapping=overlapping,
        cases=tuple(cases),
    )
