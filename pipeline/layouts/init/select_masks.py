"""Masks of a case that are merged: the wanted ones, without a file that holds all structures again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.base.errors import ConfigError, DataError, Problem, did_you_mean
from pipeline.io.read_label import read_label
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase
from pipeline.layouts.folders.label_maps_by_content import has_several_values
from pipeline.layouts.label_names import LabelNames

_LOOKED_AT, _NEARLY_ALL = 5, 0.99


def with_wanted(found: DatasetListing, wanted: LabelNames) -> DatasetListing:
    """`found` with these masks alone; a case that has none of them is left out, by name."""
    names = sorted({name for case in found.cases for name in case.masks})
    faults = [
        f"{name!r} is no mask here; {did_you_mean(name, names)}" for name in wanted.structures if name not in names
    ]
    faults += [
        f"{name!r} has several values, but there is a mask for each structure; give it one"
        for name, values in wanted.structures.items()
        if len(values) > 1
    ]
    if wanted.ignore_value is not None or wanted.overlapping:
        faults.append("each mask has a value of its own, and none is ignored")
    if faults:
        raise ConfigError(f"--labels: {'; '.join(faults)}")
    cases, problems = [], []
    for case in found.cases:
        masks = {name: path for name, path in case.masks.items() if name in wanted.structures}
        if masks or not case.masks:
            cases.append(replace(case, masks=masks))
        else:
            problems.append(Problem(case.id, "has none of the masks that --labels names; left out"))
    return replace(found, cases=tuple(cases), problems=(*found.problems, *problems))


def without_all_in_one(found: DatasetListing) -> DatasetListing:
    """`found` without the file that holds all structures of a case beside a mask for each (`combined_labels`).

    It is known by its voxels: each of its values lies in another mask. Where several files are so, or none, all stay.
    """
    names = {name for case in found.cases for name in case.masks}
    everything = [name for name in sorted(names) if _is_all_in_one(name, found.cases)]
    if len(everything) != 1:
        return found
    name, cases, problems = everything[0], [], []
    for case in found.cases:
        if case.masks.keys() == {name}:
            problems.append(Problem(case.id, f"has {name} and no mask of a single structure; left out"))
        else:
            cases.append(replace(case, masks={other: path for other, path in case.masks.items() if other != name}))
    note = f"{name} holds the structures that have masks of their own too; left out"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note), problems=(*found.problems, *problems))


def _is_all_in_one(name: str, cases: Sequence[ListedCase]) -> bool:
    """Whether a file has several values in one of the first cases, each in a mask of its own, and so in all of them."""
    looked_at = [case for case in cases if name in case.masks and len(case.masks) > 2][:_LOOKED_AT]
    if not any(has_several_values(case.masks[name]) for case in looked_at):
        return False
    try:
        return all(_lies_in_others(name, case.masks) for case in looked_at)
    except DataError:
        return False


def _lies_in_others(name: str, masks: Mapping[str, Path]) -> bool:
    """Whether nearly all voxels of each value of one file lie in another mask, in another one for each value."""
    label = read_label(masks[name]).array
    inside = label != 0
    values = np.unique(label[inside])
    if len(values) >= len(masks):
        return False
    homes: dict[int, str] = {}
    for other, path in masks.items():
        if other == name:
            continue
        mask = read_label(path).array
        if mask.shape != label.shape:
            return False
        for value in values:
            if np.mean(mask[label == value] != 0) > _NEARLY_ALL:
                homes.setdefault(int(value), other)
    return len(set(homes.values())) == len(values)
