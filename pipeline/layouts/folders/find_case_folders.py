"""Case folders: the folder that each file's case has, where each case has one.

Folders may be a case each, with label files below them: `c1/ct.nii.gz` with `c1/seg/seg.nii.gz`, or with a mask per
structure, `c1/segmentations/liver.nii.gz`. Masks may also be named by case and structure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pipeline.layouts.folders.file_names import Groups, Name, read_name
from pipeline.layouts.folders.label_maps_by_content import has_several_values
from pipeline.layouts.folders.name_vocabulary import (
    is_only_role_name,
    words_without_role,
)


def cases_of_files(folder: Path, names: Sequence[Name]) -> dict[Path, Path]:
    """Each file's case folder, where each case has one with its images and label files in or below it; else empty."""
    return _above_images(folder, names) or _above_labels(folder, names)


def _above_images(folder: Path, names: Sequence[Name]) -> dict[Path, Path]:
    """Images lie in their case's folder (`c1/ct`, `c1/images/ct`), label files in or below it.

    A folder called `images` with several images, or the only one with several, holds several cases and is not one.
    """
    images = Counter(name.path.parent for name in names if not name.is_label)
    if any(count > 1 and (len(images) == 1 or is_only_role_name(place.name)) for place, count in images.items()):
        return {}
    case_of = {name.path: _case_folder(folder, name.path) for name in names if not name.is_label}
    if _hold_persons(folder, names, case_of):
        return {}
    cases = {case for case in case_of.values() if case != folder and not is_only_role_name(case.name)}
    for name in (name for name in names if name.is_label):
        case = next((above for above in name.path.parents if above in cases), None)
        if case is None:
            return {}
        case_of[name.path] = case
    return case_of


def _hold_persons(folder: Path, names: Sequence[Name], case_of: Mapping[Path, Path]) -> bool:
    """Whether folders with several images have none of a name in common: then these are persons, and no channels."""
    images: dict[Path, set[str]] = defaultdict(set)
    for name in (name for name in names if not name.is_label):
        case = case_of[name.path]
        images[case].add(name.of_case_folder(folder, case, case.name, "").channel)
    several = [own for own in images.values() if len(own) > 1]
    counts = Counter(channel for own in images.values() for channel in own)
    return len(several) > 1 and max(counts.values()) == 1


def _case_folder(folder: Path, image: Path) -> Path:
    """The folder of an image's case where each has one: `c1` of `c1/ct`, and of `c1/images/ct`."""
    place = image.parent
    return place.parent if is_only_role_name(place.name) and folder not in (place, place.parent) else place


def _above_labels(folder: Path, names: Sequence[Name]) -> dict[Path, Path]:
    """Images lie below the folder of their case's label files, or beside them: `c1/wmh` with `c1/pre/t1`.

    The case is the nearest folder above a label file that has images in or below it. No two may have one inside the
    other, and all have label files of the same names. Images of no label file are of a folder beside such ones.
    """
    above = {place for name in names if not name.is_label for place in name.path.parents if folder in place.parents}
    case_of: dict[Path, Path] = {}
    for name in (name for name in names if name.is_label):
        case = next((place for place in name.path.parents if place in above), None)
        if case is None:
            return {}
        case_of[name.path] = case
    cases = set(case_of.values())
    labels = Counter(called_in(case_of[name.path], name) for name in names if name.is_label)
    if len(cases) < 2 or any(is_only_role_name(case.name) or set(case.parents) & cases for case in cases):
        return {}
    if 2 * min(labels.values()) <= len(cases) or any(structure.isdigit() for _, structure in labels):
        return {}
    groups, places = {case.parent for case in cases}, Counter[str]()
    for name in (name for name in names if not name.is_label):
        case = next((place for place in name.path.parents if place in cases), None)
        case = case or next((place for place in name.path.parents if place.parent in groups), None)
        if case is None:
            return {}
        case_of[name.path] = case
    for case, place in {(case, path.parent) for path, case in case_of.items()}:
        places[str(place.relative_to(case))] += 1
    # A folder that few cases have is rather a person than a part of the case.
    return {} if 2 * min(places.values()) <= len(set(case_of.values())) else case_of


def called_in(case: Path, label: Name) -> tuple[str, str]:
    """A label file's folder below its case's, and its name without that of the case."""
    return str(label.path.parent.relative_to(case)), label.structure_in(case)


def drop_files_below_cases(folder: Path, files: list[Path], labels: Collection[Path] | None = None) -> list[Path]:
    """Without what lies further below where every case's folder holds its images and one label map (`c1/instances/`).

    In a folder that is called so (`c1/masks/`) are masks of its structures, which stay. labels: the label maps, where
    names do not tell.
    """
    names = [read_name(folder, path, False, labels) for path in files]
    maps = Counter(name.path.parent for name in names if name.is_label)
    images = {name.path.parent for name in names if not name.is_label}
    cases = {place for place in images if maps[place] == 1 and place != folder}
    unlabelled = {place for place in images - cases if place.parent in {case.parent for case in cases}}
    below = [name for name in names if (cases | unlabelled) & set(name.path.parent.parents)]
    further = {
        name.path
        for name in below
        if name.path.parent not in cases and not (name.is_label and is_only_role_name(name.path.parent.name))
    }
    elsewhere = images - cases - unlabelled - {path.parent for path in further}
    return files if elsewhere or len(cases) == 1 else [path for path in files if path not in further]


def one_folder_per_case(folder: Path, names: Sequence[Name]) -> bool:
    """True where no folder has two label maps, each label map has images beside it, and nothing lies at the top.

    A single such folder is a case only if its images carry no other name (`data/c1` is the case c1). False where label
    files are masks, each case's of one of a few structures.
    """
    images, labels = (Counter(name.path.parent for name in names if name.is_label == kind) for kind in (False, True))
    if not labels or folder in images or max(labels.values()) > 1 or not labels.keys() <= images.keys():
        return False
    structures = Counter(name.structure_in(name.path.parent) for name in names if name.is_label)
    if 1 < len(structures) < len(labels) and "" not in structures:
        return any(has_several_values(name.path) for name in names if name.is_label)
    own = [
        name.of_case_folder(folder, name.path.parent, name.path.parent.name, "").channel in ("", name.channel)
        for name in names
        if not name.is_label
    ]
    return len(images) > 1 or all(own)


def ids_of_folders(folder: Path, cases: Collection[Path]) -> dict[Path, str]:
    """Each case's folder to an id: its own name, where that tells cases apart.

    Else what does, of the folders above: `sub-1` of `sub-1/ses-1/anat` where all end so, `Center_1_Patient_1` where
    another centre has a Patient_1 too.
    """
    parts = distinguishing_parts(folder, cases)
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ids = {case: "_".join(own[-count:]) or folder.name for case, own in parts.items()}
        if len(set(ids.values())) == len(ids):
            return ids
    return {case: case.name for case in cases}


def distinguishing_parts(folder: Path, cases: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Each case's folder to its path below `folder`, without what all end with."""
    parts = {case: case.relative_to(folder).parts for case in cases}
    while len(parts) > 1 and len({own[-1:] for own in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {case: own[:-1] for case, own in parts.items()}
    return parts


def are_called_alike(images: Groups) -> bool:
    """Whether the names of several images say no more than that they are such: it is their folders that tell."""
    ids = [group[0].id for group in images.values()]
    return len(set(ids)) < len(ids) and not any(map(words_without_role, ids))
