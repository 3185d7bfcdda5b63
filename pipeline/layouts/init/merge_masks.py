"""Several binary masks per case, one per structure, merged into one label map per case."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from pipeline.base.errors import DataError, Problem
from pipeline.dataset.manifest import MOST_OVERLAPPING
from pipeline.io.grid_difference import grid_difference
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, some_of
from pipeline.layouts.folders.several_annotators import pattern_of
from pipeline.layouts.init.select_masks import with_wanted, without_all_in_one
from pipeline.layouts.label_names import LabelNames
from pipeline.parallel.threads import in_threads


@dataclass(frozen=True)
class _Combined:
    """The masks of a case as one array of numbers: `members[number]` has bit i where the i-th structure is there."""

    volume: Volume
    members: Sequence[int]

    def voxels(self) -> dict[int, int]:
        """Members to how many voxels have just these, background left out."""
        counts = np.bincount(self.volume.array.ravel(), minlength=len(self.members))
        return {bits: int(n) for bits, n in zip(self.members, counts, strict=True) if bits and n}


@dataclass(frozen=True)
class _Surveyed:
    """What was seen of a case. combined: whether its masks go together. shared: members to voxels, of several each."""

    combined: bool
    shared: Mapping[int, int]
    problems: Sequence[Problem]


def merge_masks(found: DatasetListing, folder: Path, wanted: LabelNames | None = None) -> DatasetListing:
    """`found` with the masks of each case as one label map in `folder`, and with what its values mean.

    Structures that share no voxel get the values 1, 2, ... (or those of `wanted`, and then only these are taken); every
    combination that occurs gets a value after these, and belongs to all its structures, which then overlap. Of more
    structures than can overlap, the smaller one of the case takes what is shared. Masks that share voxels, are missing,
    hold several values or lie on another grid are named; the cases of the last two kinds are left out. Raises a
    ConfigError where no masks are called as is wanted.
    """
    found = without_all_in_one(found)
    if wanted is not None:
        found = with_wanted(found, wanted)
    names = sorted({name for case in found.cases for name in case.masks})
    with_masks = [case for case in found.cases if case.masks]
    folder.mkdir(parents=True, exist_ok=True)
    singles = {1 << i: wanted.structures[name][0] if wanted else i + 1 for i, name in enumerate(names)}
    survey = partial(_survey, names=names, values=singles, folder=folder)
    ids = [case.id for case in with_masks]
    seen = dict(zip(ids, in_threads(survey, with_masks, "merging masks"), strict=True))
    cases_that_share: dict[int, list[str]] = defaultdict(list)
    shared: Counter[int] = Counter()
    for case, surveyed in seen.items():
        shared.update(surveyed.shared)
        for bits in surveyed.shared:
            cases_that_share[bits].append(case)
    may_overlap = len(names) <= MOST_OVERLAPPING
    values = dict(singles)
    if may_overlap:
        last = max(singles.values(), default=0)
        values |= {bits: last + i for i, bits in enumerate(sorted(shared), start=1)}
    write = partial(_write, names=names, values=values, folder=folder)
    in_threads(write, [case for case in with_masks if seen[case.id].shared], "merging masks that share voxels")
    cases = [
        replace(case, label=_path(case, folder), masks={}) if case.masks else case
        for case in found.cases
        if not case.masks or seen[case.id].combined
    ]
    structures = {
        name: tuple(sorted(value for bits, value in values.items() if bits >> i & 1)) for i, name in enumerate(names)
    }
    note = f"the masks of {len(names)} structures are merged into the label maps in {folder.name}/"
    problems = [problem for surveyed in seen.values() for problem in surveyed.problems]
    return replace(
        found,
        cases=tuple(cases),
        labelling=LabelNames(structures),
        notes=(*found.notes, note),
        problems=(*found.problems, *problems, *_overlaps(names, shared, cases_that_share, may_overlap)),
    )


def _survey(case: ListedCase, names: Sequence[str], values: Mapping[int, int], folder: Path) -> _Surveyed:
    """Reads the masks of a case; where they share no voxel, its label map is written."""
    problems: list[Problem] = []
    combined = _combined(case, names, problems)
    if combined is None:
        return _Surveyed(False, {}, problems)
    shared = {bits: count for bits, count in combined.voxels().items() if bits & (bits - 1)}
    if not shared:
        _write_values(case, combined, values, folder)
    return _Surveyed(True, shared, problems)


def _write(case: ListedCase, names: Sequence[str], values: Mapping[int, int], folder: Path) -> None:
    """The label map of a case whose masks share voxels."""
    combined = _combined(case, names, [])
    if combined is None:
        raise AssertionError("only cases whose masks go together are merged")
    _write_values(case, combined, values, folder)


def _write_values(case: ListedCase, combined: _Combined, values: Mapping[int, int], folder: Path) -> None:
    """Combinations without a value of their own get that of their smallest structure in this case."""
    sizes: Counter[int] = Counter()
    for bits, voxels in combined.voxels().items():
        sizes.update(dict.fromkeys(_structures(bits), voxels))
    table = np.zeros(len(combined.members), np.min_scalar_type(max(values.values())))
    for number, bits in enumerate(combined.members):
        if bits:
            smallest = min(_structures(bits), key=lambda i: (sizes[i], i))
            table[number] = values.get(bits, values[1 << smallest])
    write_label(_path(case, folder), combined.volume.with_array(table[combined.volume.array]))


def _structures(bits: int) -> list[int]:
    return [i for i in range(bits.bit_length()) if bits >> i & 1]


def _path(case: ListedCase, folder: Path) -> Path:
    return folder / f"{case.id}.nii.gz"


def _combined(case: ListedCase, names: Sequence[str], problems: list[Problem]) -> _Combined | None:
    """The masks of a case as one array; None, and a problem, where they do not go together."""
    result: Volume | None = None
    members, number_of = [0], {0: 0}
    for name, path in sorted(case.masks.items()):
        try:
            mask = read_label(path)
        except DataError as error:
            problems.append(Problem(case.id, f"{error}; the case is left out"))
            return None
        inside = mask.array != 0
        if len(found := np.unique(mask.array[inside])) > 1:
            shown = ", ".join(map(str, found[:5]))
            problems.append(
                Problem(
                    case.id,
                    f"{path.name} holds the values {shown}, where a mask has one; the case is left out (if it is a "
                    "label map, write a table (CSV) with columns id, image and label, or name it with --label-files "
                    f"{pattern_of(path, case.id)})",
                )
            )
            return None
        if result is None:
            result = mask.with_array(np.zeros(mask.array.shape, np.int32))
        elif difference := grid_difference(result.grid, mask.grid):
            problems.append(Problem(case.id, f"{path.name} lies on another grid: {difference}; the case is left out"))
            return None
        before = result.array[inside]
        joined = np.zeros(len(members), np.int32)
        for number in np.flatnonzero(np.bincount(before, minlength=len(members))):
            bits = members[number] | 1 << names.index(name)
            joined[number] = number_of.setdefault(bits, len(members))
            if joined[number] == len(members):
                members.append(bits)
        result.array[inside] = joined[before]
    if result is None:
        raise AssertionError("a case that is merged has masks")
    if missing := [name for name in names if name not in case.masks]:
        problems.append(Problem(case.id, f"has no mask of {', '.join(missing)}; taken as not in this scan"))
    return _Combined(result, members)


def _overlaps(
    names: Sequence[str], shared: Mapping[int, int], cases: Mapping[int, Sequence[str]], may_overlap: bool
) -> list[Problem]:
    """A problem for each two structures that share voxels."""
    voxels_of: Counter[tuple[int, int]] = Counter()
    cases_of: dict[tuple[int, int], set[str]] = defaultdict(set)
    for bits, voxels in shared.items():
        for pair in combinations(_structures(bits), 2):
            voxels_of[pair] += voxels
            cases_of[pair].update(cases[bits])
    cure = (
        "both are kept, as structures that overlap; if they should not, correct these masks"
        if may_overlap
        else f"more than {MOST_OVERLAPPING} structures cannot overlap, so the smaller one has these voxels; look "
        "whether that is right, or correct these masks"
    )
    problems = []
    for i, j in sorted(voxels_of):
        where = sorted(cases_of[i, j])
        found = f"share {voxels_of[i, j]} voxels in {len(where)} cases ({some_of(where)})"
        problems.append(Problem(f"masks {names[i]} and {names[j]}", f"{found}; {cure}"))
    return problems
