"""Plain folders of images and label maps, matched by their names.

Read are two folders (`images/`, `labels/`; imagesTr, labelsTr, imagesTs), one folder (`c1.nii.gz`, `c1_seg.nii.gz`;
`img01`, `label01`) and one folder per case (`c1/t1.nii.gz`, `c1/seg.nii.gz`; with label files below it:
`case_folders.py`). How a path is read: `naming.py`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.data.cases import Channel
from pipeline.layouts.case_folders import case_folder, labels_in_case_folders, masks_of_images
from pipeline.layouts.case_table import with_table
from pipeline.layouts.found import Found, FoundCase, channel_stack, image_files, modality_of, refuse_shared_ids
from pipeline.layouts.naming import Name, is_testing, is_validating, read_name, says_role_alone

_SCANS_OF_A_PERSON, _STUDIES_OF_A_PERSON = 10, 5
"""At most, on average, where folders are persons, and where folders above those of cases are."""
_PERSONS = 10
"""At least, where folders above those of cases are: fewer may be hospitals."""

Groups = Mapping[str, Sequence[Name]]


def read(folder: Path) -> Found:
    """Pairs images with label maps; an image without one becomes a testing case, and is said aloud.

    Raises a DataError where there is no image, or where two files would become one case (all are named).
    """
    files = image_files(folder)
    used = _beside_label_maps(folder, files)
    names = _names(folder, used)
    images, labels = _grouped(name for name in names if not name.is_label), _grouped(n for n in names if n.is_label)
    if not images:
        raise DataError(f"{folder}: has no images ({len(names)} files are label maps by their names)")
    masks: Mapping[str, Mapping[str, Path]] = {}  # case folder to structure to file
    if labels and not labels.keys() & images.keys():
        maps, masks = labels_in_case_folders(folder, names)
        if maps or masks:
            images = _grouped(n.of_case_folder(folder, case_folder(folder, n.path)) for n in names if not n.is_label)
            labels = {case: [name] for case, name in maps.items()}
        else:
            masks = masks_of_images(images.keys(), [name for group in labels.values() for name in group])
            labels = {} if masks else labels
    if labels and not labels.keys() & images.keys():
        an_image, a_label = (next(iter(group.values()))[0].path.name for group in (images, labels))
        raise DataError(
            f"{folder}: no label map has an image of its name (such as {a_label} and {an_image}); "
            "name them alike, or write a table with columns id, image and label"
        )
    refuse_shared_ids({key: [str(name.path) for name in group] for key, group in labels.items()})
    channels = _channels(images, labels.keys() & images.keys() or images.keys())
    problems = [
        Problem(group[0].path.name, "label map without an image of its name; left out")
        for key, group in sorted(labels.items())
        if key not in images
    ]
    cases = [_case(folder, group, labels.get(key, ()), channels, problems) for key, group in sorted(images.items())]
    cases = [
        replace(case, masks=masks[key], split="testing" if is_testing(folder, case.images[0]) else "training")
        if key in masks
        else case
        for key, case in zip(sorted(images), cases, strict=True)
    ]
    cases = _with_validation(folder, _with_subjects(folder, cases))
    _refuse_shared(folder, cases, labelled=bool(labels or masks))
    found = Found(
        layout="folders",
        folder=folder,
        name=folder.name,
        channels=tuple(_channel(name if len(channels) > 1 else "") for name in channels),
        cases=tuple(cases),
        notes=(*_left_out(folder, files, used), *_notes(cases, channels)),
        problems=tuple(problems),
    )
    return with_table(found)


def _refuse_shared(folder: Path, cases: Sequence[FoundCase], labelled: bool) -> None:
    """One id for several files; where nothing is known to be a label map, that is most likely why."""
    claims: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        claims[case.id].append(str(case.images[0].relative_to(folder)))
    if not labelled and all(len(files) > 1 for files in claims.values()):
        places = ", ".join(sorted({str(Path(file).parent) for files in claims.values() for file in files}))
        raise DataError(
            f"{folder}: {places} hold files of the same names, and no name says which are label maps; call their "
            "folder labels (or masks, seg, gt), or write a table with columns id, image and label"
        )
    refuse_shared_ids(claims)


def _names(folder: Path, files: Sequence[Path]) -> list[Name]:
    """The files' names, read in the way that fits the folder.

    Four digits at the end of images' names are a channel (`c1_0000`), unless label maps match better where they are
    part of the case's name (`case_0001` with a label map `case_0001`). Then a folder may be a case.
    """
    as_channels, as_names = ([read_name(folder, path, suffixes) for path in files] for suffixes in (True, False))
    names = as_names if _matches(as_names) >= max(_matches(as_channels), 1) else as_channels
    if _one_folder_per_case(folder, names):
        return [name.of_case_folder(folder) for name in names]
    if _matches(names):
        return names
    without_folders = [replace(name, key=name.key.rsplit("/", 1)[-1]) for name in as_names]
    guesses = (*map(_by_numbers, (as_channels, as_names)), *map(_by_beginning, (as_names, without_folders)))
    return next((guess for guess in guesses if _matches(guess)), names)


def _beside_label_maps(folder: Path, files: list[Path]) -> list[Path]:
    """Without what lies further below where every case's folder holds its images and one label map (`c1/instances/`).

    In a folder that is called so (`c1/masks/`) are masks of its structures, which stay.
    """
    names = [read_name(folder, path, suffixes=False) for path in files]
    labels = Counter(name.path.parent for name in names if name.is_label)
    images = {name.path.parent for name in names if not name.is_label}
    cases = {place for place in images if labels[place] == 1 and place != folder}
    below = [name for name in names if cases & set(name.path.parent.parents)]
    further = {name.path for name in below if not (name.is_label and says_role_alone(name.path.parent.name))}
    elsewhere = images - cases - {path.parent for path in further}
    return files if elsewhere else [path for path in files if path not in further]


def _left_out(folder: Path, files: Sequence[Path], used: Sequence[Path]) -> list[str]:
    if not (rest := sorted(set(files) - set(used))):
        return []
    return [
        f"{len(rest)} files lie below the folders of cases, such as {rest[0].relative_to(folder)}; left out, since "
        "each of these folders has its images and label map"
    ]


def _by_numbers(names: Sequence[Name]) -> list[Name]:
    """`scan_12` and `labels/p12_lab` as one case, where numbers tell all images and all label maps apart; else none."""
    keyed = [replace(name, key=" ".join(re.findall(r"\d+", name.id))) for name in names]
    for is_label in (False, True):
        keys = [name.key for name in keyed if name.is_label == is_label]
        if not all(keys) or len(set(keys)) < len(keys):
            return []
    return keyed


def _by_beginning(names: Sequence[Name]) -> list[Name]:
    """`c1_venous` and `c1_arterial` as channels of `c1_mask`, where every label map has images that begin like it."""
    keys = [name.key for name in names if name.is_label]
    labels = set(keys)
    if len(labels) < len(keys):
        return []
    matched = []
    for name in names:
        begins = {label for label in labels if name.key.startswith(f"{label}_")}
        if name.is_label or not begins:
            matched.append(name)
            continue
        key = max(begins, key=len)
        shared_id = name.shared_id[: len(name.shared_id) - len(name.key) + len(key)]
        rest = "_".join(filter(None, (name.key[len(key) + 1 :], name.channel)))
        matched.append(replace(name, key=key, channel=rest, shared_id=shared_id))
    return matched if labels <= {name.key for name in matched if not name.is_label} else []


def _matches(names: Sequence[Name]) -> int:
    return len({name.key for name in names if name.is_label} & {name.key for name in names if not name.is_label})


def _one_folder_per_case(folder: Path, names: Sequence[Name]) -> bool:
    """True where no folder has two label maps, each label map has images beside it, and nothing lies at the top.

    A single such folder is a case only if its images carry no other name (`data/c1` is the case c1).
    """
    images, labels = (Counter(name.path.parent for name in names if name.is_label == kind) for kind in (False, True))
    if not labels or folder in images or max(labels.values()) > 1 or not labels.keys() <= images.keys():
        return False
    own = [name.of_case_folder(folder).channel in ("", name.channel) for name in names if not name.is_label]
    return len(images) > 1 or all(own)


def _grouped(names: Iterable[Name]) -> dict[str, list[Name]]:
    groups: dict[str, list[Name]] = defaultdict(list)
    for name in names:
        groups[name.key].append(name)
    return dict(groups)


def _channels(images: Groups, trained: Iterable[str]) -> list[str]:
    """The channels that at least half of the cases `trained` on have; [''] where no case has several images.

    Where there is no such channel, or no case has them all, those that half of the cases with several images have.
    """
    channels = {key: {name.channel for name in group} for key, group in images.items()}
    several = [own for own in channels.values() if len(own) > 1]
    if not several:
        return [""]
    for counted in ([channels[key] for key in trained], several):
        counts = Counter(channel for own in counted for channel in own)
        common = {channel for channel, count in counts.items() if 2 * count >= len(counted)}
        if common and any(common <= own for own in counted):
            return sorted(common)
    return sorted(set.union(*several))


def _case(
    folder: Path, group: Sequence[Name], labels: Sequence[Name], channels: Sequence[str], problems: list[Problem]
) -> FoundCase:
    """The case of one key: its only image, or its channels in order; others that lie beside these are named."""
    first = next((name for name in group if name.channel == channels[0]), group[0])
    case = first.id if len(channels) == 1 else first.shared_id
    refuse_shared_ids(_grouped_paths(case, group))
    if len(channels) == len(group) == 1:
        images: tuple[Path, ...] = (first.path,)
        if channels[0] not in ("", first.channel):
            problems.append(Problem(case, f"{first.path.name}: most cases have {channels[0]}; look whether it is that"))
    else:
        images = channel_stack(case, {name.channel: name.path for name in group}, channels, problems)
        others = [name.path.name for name in group if name.channel not in channels]
        problems += [Problem(case, f"{name}: most cases have no such channel; left out") for name in others]
    label = labels[0].path if labels else None
    return FoundCase(
        id=case,
        images=images,
        label=label,
        split="testing" if label is None or is_testing(folder, first.path) else "training",
    )


def _with_subjects(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """`patient01/patient01_frame2` is of the subject patient01, where folders hold a few cases each.

    Those of `ct_train/ct_train_1001` are parts of the data set, and not persons.
    """
    folders = [case.images[0].parent for case in cases if _names_its_folder(folder, case.images[0])]
    if not folders:
        return _with_folders_of_studies(folder, cases)
    only = folders[0].name if len(set(folders)) == 1 else ""
    if len(folders) > _SCANS_OF_A_PERSON * len(set(folders)) or (only and not re.search(r"\d", only)):
        return list(cases)
    return [replace(case, subject=at.name) if (at := case.images[0].parent) in folders else case for case in cases]


def _with_folders_of_studies(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """`PETCT_01/study_2/CT` is of the subject PETCT_01, where many folders hold a few studies each."""
    above = [case.images[0].parent.parent for case in cases if case.id == case.images[0].parent.name]
    persons = set(above) - {folder}
    if len(above) < len(cases) or len(persons) < _PERSONS or len(cases) > _STUDIES_OF_A_PERSON * len(persons):
        return list(cases)
    return [replace(case, subject=case.images[0].parent.parent.name) for case in cases]


def _with_validation(folder: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """Fold 0 is validated on `imagesVal`, where there are other cases to train on."""
    training = [case for case in cases if case.split == "training"]
    validating = {case.id for case in training if is_validating(folder, case.images[0])}
    if len(validating) == len(training):
        return list(cases)
    return [replace(case, fold=0) if case.id in validating else case for case in cases]


def _grouped_paths(case: str, group: Sequence[Name]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = defaultdict(list)
    for name in group:
        claims[f"{case} (channel {name.channel})" if name.channel else case].append(str(name.path))
    return claims


def _names_its_folder(folder: Path, path: Path) -> bool:
    """True for `patient01/patient01_frame2`: then the folder is the subject."""
    return path.parent != folder and path.name.startswith(path.parent.name)


def _channel(name: str) -> Channel:
    """A channel by what its files' names say; a bare number is only counted."""
    words = f"channel_{int(name)}" if name.isdigit() else name or "image"
    return Channel(name=words, modality=modality_of(name))


def _notes(cases: Sequence[FoundCase], channels: Sequence[str]) -> list[str]:
    notes = []
    if unlabelled := [case.id for case in cases if case.label is None and not case.masks]:
        notes.append(f"{len(unlabelled)} images without a label map became testing cases: {', '.join(unlabelled)}")
    if len(channels) > 1:
        notes.append(f"channels by file name: {', '.join(_channel(name).name for name in channels)}")
    return notes
