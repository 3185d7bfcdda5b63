"""Which files of plain folders belong to one case: by their names, or by what they hold where no name tells."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.by_content import with_labels_by_content
from pipeline.layouts.naming import Name, read_name, says_role_alone

_MOST_CHANNELS = 8
"""Images of one label map, where they are known by their beginning alone."""


def beside_label_maps(folder: Path, files: list[Path]) -> list[Path]:
    """Without what lies further below where every case's folder holds its images and one label map (`c1/instances/`).

    In a folder that is called so (`c1/masks/`) are masks of its structures, which stay.
    """
    names = [read_name(folder, path, suffixes=False) for path in files]
    labels = Counter(name.path.parent for name in names if name.is_label)
    images = {name.path.parent for name in names if not name.is_label}
    cases = {place for place in images if labels[place] == 1 and place != folder}
    unlabelled = {place for place in images - cases if place.parent in {case.parent for case in cases}}
    below = [name for name in names if (cases | unlabelled) & set(name.path.parent.parents)]
    further = {
        name.path
        for name in below
        if name.path.parent not in cases and not (name.is_label and says_role_alone(name.path.parent.name))
    }
    elsewhere = images - cases - unlabelled - {path.parent for path in further}
    return files if elsewhere or len(cases) == 1 else [path for path in files if path not in further]


def read_names(folder: Path, files: Sequence[Path]) -> list[Name]:
    """The files' names, read in the way that fits the folder.

    Four digits at the end of images' names are a channel (`c1_0000`), unless label maps match better where they are
    part of the case's name (`case_0001` with a label map `case_0001`). Then a folder may be a case.
    """
    as_channels, as_names = ([read_name(folder, path, suffixes) for path in files] for suffixes in (True, False))
    names = as_names if _matches(as_names) >= max(_matches(as_channels), 1) else as_channels
    if one_folder_per_case(folder, names):
        return [name.of_case_folder(folder) for name in names]
    if _matches(names):
        return names
    without_folders = [replace(name, key=name.key.rsplit("/", 1)[-1]) for name in as_names]
    guesses = (*map(_by_numbers, (as_channels, as_names)), *map(_by_beginning, (as_names, without_folders)))
    return next((guess for guess in guesses if _matches(guess)), names)


def named_by_content(folder: Path, names: Sequence[Name]) -> list[Name]:
    """`names`, none of which says that it is a label map, with those that hold few values as such; empty if none does.

    Only where folders hold files of the same names, so that label maps may be among them.
    """
    told = with_labels_by_content(names) if _hold_the_same_names(names) else []
    if one_folder_per_case(folder, told):
        return [name.of_case_folder(folder) for name in told]
    by_file = [replace(name, key=name.key.rsplit("/", 1)[-1]) for name in told]
    return by_file if len(_keys(by_file)) == len(by_file) and not _matches(told) else told


def _keys(names: Sequence[Name]) -> set[tuple[str, bool]]:
    return {(name.key, name.is_label) for name in names}


def _by_numbers(names: Sequence[Name]) -> list[Name]:
    """`scan_12` and `labels/p12_lab` as one case, where numbers tell all images and all label maps apart; else none."""
    keyed = [replace(name, key=" ".join(re.findall(r"\d+", name.id))) for name in names]
    for is_label in (False, True):
        keys = [name.key for name in keyed if name.is_label == is_label]
        if not all(keys) or len(set(keys)) < len(keys):
            return []
    return keyed


def _by_beginning(names: Sequence[Name]) -> list[Name]:
    """`c1_venous` and `c1_arterial` as channels of `c1_mask`, where every label map has images that begin like it.

    None where what follows only counts, or one label map has many images: these are cases.
    """
    keys = [name.key for name in names if name.is_label]
    labels = set(keys)
    beginning = {
        name.path: max((label for label in labels if name.key.startswith(f"{label}_")), key=len, default="")
        for name in names
        if not name.is_label
    }
    rests = {name.key[len(label) + 1 :] for name in names if (label := beginning.get(name.path))}
    most = max(Counter(label for label in beginning.values() if label).values(), default=0)
    if len(labels) < len(keys) or labels - set(beginning.values()) or most > _MOST_CHANNELS:
        return []
    if all(rest.isdigit() for rest in rests):
        return []
    matched = []
    for name in names:
        key = beginning.get(name.path) or _without_ending(name.key, rests)
        if name.is_label or key == name.key:
            matched.append(name)
            continue
        shared_id = name.shared_id[: len(name.shared_id) - len(name.key) + len(key)]
        rest = "_".join(filter(None, (name.key[len(key) + 1 :], name.channel)))
        matched.append(replace(name, key=key, channel=rest, shared_id=shared_id))
    return matched


def _without_ending(key: str, rests: Collection[str]) -> str:
    """The case of an image without a label map, whose name ends like those of images with one."""
    ending = max((rest for rest in rests if key.endswith(f"_{rest}")), key=len, default="")
    return key[: -len(ending) - 1] if ending else key


def _matches(names: Sequence[Name]) -> int:
    return len({name.key for name in names if name.is_label} & {name.key for name in names if not name.is_label})


def _hold_the_same_names(names: Sequence[Name]) -> bool:
    """True for `c1/a`, `c1/b`, `c2/a`, `c2/b`, and for `x/c1`, `x/c2`, `y/c1`, `y/c2`: one is perhaps a label map."""
    by_folder: dict[Path, set[str]] = defaultdict(set)
    for name in names:
        by_folder[name.path.parent].add(name.path.name)
    several = list(by_folder.values())
    return len(several) > 1 and all(several[0] & own for own in several[1:])


def one_folder_per_case(folder: Path, names: Sequence[Name]) -> bool:
    """True where no folder has two label maps, each label map has images beside it, and nothing lies at the top.

    A single such folder is a case only if its images carry no other name (`data/c1` is the case c1).
    """
    images, labels = (Counter(name.path.parent for name in names if name.is_label == kind) for kind in (False, True))
    if not labels or folder in images or max(labels.values()) > 1 or not labels.keys() <= images.keys():
        return False
    own = [name.of_case_folder(folder).channel in ("", name.channel) for name in names if not name.is_label]
    return len(images) > 1 or all(own)
