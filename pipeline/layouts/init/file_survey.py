"""Looks into the files of all cases: which label values there are, which are rare, and which files are broken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, Problem
from pipeline.base.machine import usable_cores
from pipeline.base.terminal import progress
from pipeline.io.hashing import file_digest
from pipeline.io.read_image import verify_readable
from pipeline.io.read_label import read_label
from pipeline.layouts.dataset_listing import ListedCase
from pipeline.layouts.label_names import LabelNames

RARE_CASES, RARE_VOXELS = 0.05, 10
MOST_VALUES = 255


@dataclass(frozen=True)
class FileSurvey:
    """values: case id to label value to voxels, background left out. broken: what cannot be read, by case id.

    filled: the cases whose label map has no voxel of 0.
    """

    values: Mapping[str, Mapping[int, int]]
    broken: Mapping[str, Problem]
    sha256: Mapping[Path, str]
    filled: Collection[str] = ()

    def cases_of(self) -> dict[int, list[str]]:
        """Label value to the cases that have it, in order of value."""
        cases: dict[int, list[str]] = defaultdict(list)
        for case, counts in self.values.items():
            for value in counts:
                cases[value].append(case)
        return {value: cases[value] for value in sorted(cases)}


def survey_files(cases: Sequence[ListedCase]) -> FileSurvey:
    """Hashes and reads every file to its end, and counts label values; a broken file never ends it.

    Cases go through threads: reading, unpacking and hashing let go of the interpreter's lock.
    """
    values: dict[str, Mapping[int, int]] = {}
    broken: dict[str, Problem] = {}
    sha256: dict[Path, str] = {}
    filled: list[str] = []
    with ThreadPoolExecutor(usable_cores()) as pool, progress("reading", len(cases)) as bar:
        for case, hashes, result in zip(cases, pool.map(_hash, cases), pool.map(_look, cases), strict=True):
            sha256 |= hashes
            if isinstance(result, Problem):
                broken[case.id] = result
            elif result is not None:
                values[case.id] = {value: voxels for value, voxels in result.items() if value != 0}
                if result and 0 not in result:
                    filled.append(case.id)
            bar.advance()
    return FileSurvey(values, broken, sha256, filled)


def _hash(case: ListedCase) -> dict[Path, str]:
    """Of the files that can be read; what is wrong with the others is `_look`'s to say."""
    hashes = {}
    for path in case.files:
        with suppress(OSError):
            if path.is_file():
                hashes[path] = file_digest(path)
    return hashes


def _look(case: ListedCase) -> Mapping[int, int] | Problem | None:
    """The label counts of a case; None where it has no label; a Problem where a file cannot be read."""
    try:
        for path in case.images:
            verify_readable(path)
        return None if case.label is None else _counts(read_label(case.label).array)
    except DataError as error:
        return Problem(case.id, str(error))
    except MemoryError:
        return Problem(case.id, "there is not enough memory to read it; crop that scan, or use a machine with more")


def _counts(label: NDArray) -> dict[int, int]:
    """Voxels of each value, slice by slice, so that no sorted copy of a large label map is needed."""
    counts: Counter[int] = Counter()
    for plane in np.moveaxis(label, -1, 0):
        values, voxels = np.unique(plane, return_counts=True)
        counts.update(dict(zip(values.tolist(), voxels.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def infer(census: FileSurvey) -> tuple[LabelNames | None, list[str], list[Problem]]:
    """One structure `label_VALUE` per value that occurs, said aloud; rare and negative values are flagged.

    None where no label map has any value above 0. A DataError where there are so many that they cannot be labels.
    """
    cases = census.cases_of()
    negative = [
        Problem(
            f"label value {value}",
            f"is negative, so no structure; correct the label maps of {', '.join(cases.pop(value))}",
        )
        for value in [value for value in cases if value < 0]
    ]
    if len(cases) > MOST_VALUES:
        raise DataError(
            f"the label maps have {len(cases)} different values (from {min(cases)} to {max(cases)}), as images have; "
            "if they are label maps, name the structures with --labels name=value,..."
        )
    if not cases:
        return None, [], negative
    names = {f"label_{value}": (value,) for value in cases}
    listing = ", ".join(f"{name}={values[0]}" for name, values in names.items())
    notes = [
        f"labels are inferred from {len(census.values)} label maps: {listing}; name them with --labels name=value,..."
    ]
    return LabelNames(names), notes, [*negative, *_filled(census, None), *_rare(census, cases)]


def _filled(census: FileSurvey, ignored: int | None) -> list[Problem]:
    """Label maps without background: the value that most voxels have may stand for it there, not the ignored one."""
    cases_of: dict[int, list[str]] = defaultdict(list)
    for case in census.filled:
        if counts := {value: voxels for value, voxels in census.values[case].items() if value != ignored}:
            cases_of[max(counts, key=lambda value: counts[value])].append(case)
    problems = []
    for value, where in sorted(cases_of.items()):
        found = f"fills the label maps of {', '.join(where)}, where no voxel is 0 (background)"
        cure = f"if {value} stands for background there, set it to 0; no other value can be background"
        problems.append(Problem(f"label value {value}", f"{found}; {cure}"))
    return problems


def _rare(census: FileSurvey, cases: Mapping[int, Sequence[str]]) -> list[Problem]:
    """Values in fewer than 5 % of the label maps, in one of several, or of ten voxels or fewer in all."""
    flagged = []
    total = len(census.values)
    for value, where in cases.items():
        voxels = sum(census.values[case][value] for case in where)
        if voxels <= RARE_VOXELS or len(where) < RARE_CASES * total or len(where) == 1 < total - 1:
            found = f"is rare: {voxels} voxels in {len(where)} of {total} label maps ({', '.join(where)})"
            cure = "if it is a slip, correct those maps, else give it a name with --labels"
            flagged.append(Problem(f"label value {value}", f"{found}; {cure}"))
    return flagged


def compare(census: FileSurvey, labelling: LabelNames, lookup: bool) -> tuple[LabelNames, list[str], list[Problem]]:
    """Holds declared labels against what occurs: undeclared values become problems, absent structures notes.

    Of a `lookup` table only structures that occur are kept.
    """
    cases = census.cases_of()
    problems = [
        Problem(f"label value {value}", f"is not declared, but occurs in {', '.join(where)}")
        for value, where in cases.items()
        if value not in labelling.values
    ] + _filled(census, labelling.ignore_value)
    absent = [name for name, values in labelling.structures.items() if not set(values) & set(cases)]
    if lookup and cases:
        kept = {name: values for name, values in labelling.structures.items() if name not in absent}
        return LabelNames(kept, labelling.ignore_value), [], problems
    notes = [f"declared, but in no label map: {', '.join(absent)}"] if absent and census.values else []
    return labelling, notes, problems
