"""Several binary masks per case, one per structure, merged into one label map per case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, Problem
from pipeline.base.terminal import progress
from pipeline.data.formats import grid_difference, read_label, write_label
from pipeline.data.volume import Volume
from pipeline.layouts.found import Found, FoundCase
from pipeline.layouts.labelling import Labelling

_MOST = 62
"""Structures that one manifest can hold where they overlap (a bit each)."""


def merge_masks(found: Found, folder: Path) -> Found:
    """`found` with the masks of each case as one label map in `folder`, and with what its values mean.

    Structures that share no voxel get the values 1, 2, ...; every combination that occurs gets a value after these,
    and belongs to all its structures, which then overlap. Masks that share voxels, are missing, hold several values or
    lie on another grid are named; the cases of the last two kinds are left out.
    """
    names = sorted({name for case in found.cases for name in case.masks})
    if len(names) > _MOST:
        raise DataError(f"{found.folder}: has masks of {len(names)} structures; at most {_MOST} can be merged")
    problems: list[Problem] = []
    usable: list[FoundCase] = []
    shared: Counter[int] = Counter()
    cases_that_share: dict[int, list[str]] = {}
    with progress("reading masks", len(found.cases)) as bar:
        for case in found.cases:
            bits = _bits(case, names, problems) if case.masks else None
            if bits is not None or not case.masks:
                usable.append(case)
            for combination, voxels in _combinations(bits.array).items() if bits is not None else ():
                shared[combination] += voxels
                cases_that_share.setdefault(combination, []).append(case.id)
            bar.advance()
    values = {1 << i: i + 1 for i in range(len(names))}
    values |= {combination: len(names) + i for i, combination in enumerate(sorted(shared), start=1)}
    folder.mkdir(parents=True, exist_ok=True)
    merged = [_merged(case, names, values, folder) if case.masks else case for case in usable]
    structures = {
        name: tuple(sorted(value for combination, value in values.items() if combination >> i & 1))
        for i, name in enumerate(names)
    }
    note = f"the masks of {len(names)} structures are merged into the label maps in {folder.name}/"
    return replace(
        found,
        cases=tuple(merged),
        labelling=Labelling(structures),
        notes=(*found.notes, note),
        problems=(*found.problems, *problems, *_overlaps(names, shared, cases_that_share)),
    )


def _bits(case: FoundCase, names: Sequence[str], problems: list[Problem]) -> Volume | None:
    """The masks of a case as one array, bit i for `names[i]`; None, and a problem, where they do not go together."""
    result: Volume | None = None
    for name, path in sorted(case.masks.items()):
        try:
            mask = read_label(path)
        except DataError as error:
            problems.append(Problem(case.id, f"{error}; the case is left out"))
            return None
        if len(found := np.unique(mask.array[mask.array != 0])) > 1:
            shown = ", ".join(map(str, found[:5]))
            found_here = f"{path.name} holds the values {shown}, where a mask has one; the case is left out"
            cure = "if it is a label map, write a table (CSV) with columns id, image and label"
            problems.append(Problem(case.id, f"{found_here} ({cure})"))
            return None
        if result is None:
            result = mask.with_array(np.zeros(mask.array.shape, np.int64))
        elif difference := grid_difference(result.grid, mask.grid):
            problems.append(Problem(case.id, f"{path.name} lies on another grid: {difference}; the case is left out"))
            return None
        result.array[mask.array != 0] |= 1 << names.index(name)
    if missing := [name for name in names if name not in case.masks]:
        problems.append(Problem(case.id, f"has no mask of {', '.join(missing)}; taken as not in this scan"))
    return result


def _combinations(bits: NDArray[np.int64]) -> dict[int, int]:
    """Each combination of more than one structure that occurs, and its voxels."""
    several = bits[(bits & (bits - 1)) != 0]
    found, voxels = np.unique(several, return_counts=True)
    return {int(combination): int(count) for combination, count in zip(found, voxels, strict=True)}


def _merged(case: FoundCase, names: Sequence[str], values: Mapping[int, int], folder: Path) -> FoundCase:
    bits = _bits(case, names, [])
    if bits is None:
        raise AssertionError("only cases whose masks go together are merged")
    found, inverse = np.unique(bits.array, return_inverse=True)
    table = np.array([values.get(int(combination), 0) for combination in found])
    path = folder / f"{case.id}.nii.gz"
    write_label(path, bits.with_array(table[inverse].reshape(bits.array.shape)))
    return replace(case, label=path, masks={})


def _overlaps(names: Sequence[str], shared: Mapping[int, int], cases: Mapping[int, Sequence[str]]) -> list[Problem]:
    """A problem for each two structures that share voxels."""
    problems = []
    for i, j in combinations(range(len(names)), 2):
        both = [combination for combination in shared if combination >> i & 1 and combination >> j & 1]
        if both:
            where = sorted({case for combination in both for case in cases[combination]})
            voxels = sum(shared[combination] for combination in both)
            found = f"share {voxels} voxels in {len(where)} cases ({', '.join(where)})"
            cure = "both are kept, as structures that overlap; if they should not, correct these masks"
            problems.append(Problem(f"masks {names[i]} and {names[j]}", f"{found}; {cure}"))
    return problems
