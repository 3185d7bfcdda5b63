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
from pipeline.io.read_image import verify_readable
from pipeline.io.read_label import read_label
from pipeline.io.scan_digests import file_digest
from pipeline.layouts.dataset_listing import ListedCase


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
