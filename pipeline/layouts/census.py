"""Counts the values of all label maps: what structures there are, which are rare, and which files are broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.base.errors import DataError, Problem
from pipeline.base.runtime import usable_cores
from pipeline.base.terminal import progress
from pipeline.data.formats import read_header, read_label
from pipeline.layouts.found import FoundCase
from pipeline.layouts.labelling import Labelling

RARE_CASES, RARE_VOXELS = 0.05, 10


@dataclass(frozen=True)
class Census:
    """values: case id to label value to voxels, background left out. broken: files that cannot be read, by case id."""

    values: Mapping[str, Mapping[int, int]]
    broken: Mapping[str, Problem]

    def cases_of(self) -> dict[int, list[str]]:
        """Label value to the cases that have it, in order of value."""
        cases: dict[int, list[str]] = defaultdict(list)
        for case, counts in self.values.items():
            for value in counts:
                cases[value].append(case)
        return {value: cases[value] for value in sorted(cases)}


def take_census(cases: Sequence[FoundCase]) -> Census:
    """Reads every image header and every label map, some at once; a broken file never ends it."""
    values: dict[str, dict[int, int]] = {}
    broken: dict[str, Problem] = {}
    with ThreadPoolExecutor(usable_cores()) as pool, progress("reading label maps", len(cases)) as bar:
        for case, result in zip(cases, pool.map(_look, cases), strict=True):
            if isinstance(result, Problem):
                broken[case.id] = result
            elif result is not None:
                values[case.id] = result
            bar.advance()
    return Census(values, broken)


def _look(case: FoundCase) -> dict[int, int] | Problem | None:
    """The label counts of a case; None where it has no label; a Problem where a file cannot be read."""
    try:
        for path in case.images:
            if not path.is_dir():  # a DICOM series, which its layout has read already
                read_header(path)
        if case.label is None:
            return None
        found, counts = np.unique(read_label(case.label).array, return_counts=True)
    except DataError as error:
        return Problem(case.id, str(error))
    return {int(value): int(count) for value, count in zip(found, counts, strict=True) if value != 0}


def infer(census: Census) -> tuple[Labelling | None, list[str], list[Problem]]:
    """One structure `label_VALUE` per value that occurs, said aloud; rare values are flagged.

    None where no label map has any value beside 0.
    """
    cases = census.cases_of()
    if not cases:
        return None, [], []
    names = {f"label_{value}": (value,) for value in cases}
    listing = ", ".join(f"{name}={values[0]}" for name, values in names.items())
    notes = [
        f"labels are inferred from {len(census.values)} label maps: {listing}; name them with --labels name=value,..."
    ]
    return Labelling(names), notes, _rare(census, cases)


def _rare(census: Census, cases: Mapping[int, Sequence[str]]) -> list[Problem]:
    flagged = []
    total = len(census.values)
    for value, where in cases.items():
        voxels = sum(census.values[case][value] for case in where)
        if voxels <= RARE_VOXELS or len(where) < RARE_CASES * total or len(where) == 1 < total - 1:
            flagged.append(
                Problem(
                    f"label value {value}",
                    f"is rare: {voxels} voxels in {len(where)} of {total} label maps ({', '.join(where)}); "
                    "if it is a slip, correct those maps, else give it a name with --labels",
                )
            )
    return flagged


def compare(census: Census, labelling: Labelling, lookup: bool) -> tuple[Labelling, list[str], list[Problem]]:
    """Holds declared labels against what occurs: undeclared values become problems, absent structures notes.

    Of a `lookup` table only structures that occur are kept.
    """
    cases = census.cases_of()
    problems = [
        Problem(f"label value {value}", f"is not declared, but occurs in {', '.join(where)}")
        for value, where in cases.items()
        if value not in labelling.values
    ]
    absent = [name for name, values in labelling.structures.items() if not set(values) & set(cases)]
    if lookup and cases:
        kept = {name: values for name, values in labelling.structures.items() if name not in absent}
        return Labelling(kept, labelling.ignore_value), [], problems
    notes = [f"declared, but in no label map: {', '.join(absent)}"] if absent and census.values else []
    return labelling, notes, problems
