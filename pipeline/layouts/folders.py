"""Plain folders of images and label maps, matched by their names.

Read are two folders (`images/`, `labels/`; imagesTr, labelsTr, imagesTs), one folder (`c1.nii.gz`, `c1_seg.nii.gz`;
`img01`, `label01`) and one folder per case (`c1/t1.nii.gz`, `c1/seg.nii.gz`; with label files below it:
`case_folders.py`). How a path is read: `naming.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.data.cases import Channel
from pipeline.layouts.by_content import Content, content_of
from pipeline.layouts.case_folders import cases_of_files, labels_in_case_folders, masks_of_images
from pipeline.layouts.case_table import with_table
from pipeline.layouts.found import (
    Found,
    FoundCase,
    channel_stack,
    image_files,
    modality_of,
    refuse_shared_ids,
    some_of,
    stem,
)
from pipeline.layouts.naming import Name, is_testing, is_validating, read_name, words_of
from pipeline.layouts.other_images import without_other_images
from pipeline.layouts.pairing import beside_label_maps, of_case_folders, read_names, read_unlike_names
from pipeline.layouts.persons import with_subjects
from pipeline.layouts.roles import NOTHING_CHOSEN, Chosen, roles_of

_LOOKED_AT = 3
Groups = Mapping[str, Sequence[Name]]


@dataclass(frozen=True)
class _Matched:
    """Files by case: images, label maps (some perhaps of no image), or a mask per structure; and what was assumed."""

    images: Groups
    labels: Groups
    masks: Mapping[str, Mapping[str, Path]]
    notes: Sequence[str]


def read(folder: Path, chosen: Chosen = NOTHING_CHOSEN) -> Found:
    """Pairs images with label maps; an image without one becomes a testing case, and is said aloud.

    Raises a DataError where there is no image, or where two files would become one case (all are named), and a
    ConfigError where what is chosen fits no file.
    """
    matched = _matched(folder, chosen)
    labels, masks = matched.labels, matched.masks
    images, notes = (matched.images, []) if chosen.image_files else without_other_images(matched.images)
    refuse_shared_ids(
        {key: [str(name.path) for name in group] for key, group in labels.items()},
        "or name those that are meant with --label-files",
    )
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
    cases = _with_validation(folder, with_subjects(folder, cases))
    _refuse_shared(folder, cases, labelled=bool(labels or masks))
    found = Found(
        layout="folders",
        folder=folder,
        name=folder.name,
        channels=tuple(_channel(name if len(channels) > 1 else "") for name in channels),
        cases=tuple(cases),
        notes=(*matched.notes, *notes, *_notes(folder, cases, channels)),
        problems=(*problems, *_named_for_others(folder, cases), *_label_maps_among(folder, cases)),
    )
    return with_table(found)


def _matched(folder: Path, chosen: Chosen) -> _Matched:
    """Label maps, else masks per structure, by the cases of images; a DataError where they belong to none."""
    roles = roles_of(folder, image_files(folder), chosen)
    used = roles.files if chosen else beside_label_maps(folder, roles.files, roles.labels)
    names, assumed = read_names(folder, used, roles.labels)
    notes = (*_left_out(folder, roles.files, used), *roles.notes, *assumed)
    images, labels = _grouped(name for name in names if not name.is_label), _grouped(n for n in names if n.is_label)
    if not images:
        raise DataError(f"{folder}: has no images ({len(names)} files are label maps by their names)")
    if not labels or labels.keys() & images.keys():
        return _Matched(images, labels, {}, notes)
    case_of = cases_of_files(folder, names)
    are_maps = chosen.label_files is not None
    maps, masks = labels_in_case_folders(folder, names, case_of, are_maps)
    if maps or masks:
        told, assumed = of_case_folders(folder, {name: case_of[name.path] for name in names if not name.is_label})
        return _Matched(_grouped(told), {case: [name] for case, name in maps.items()}, masks, (*notes, *assumed))
    names, by_image, unmatched = _with_masks(folder, used, names, roles.labels, are_maps)
    if by_image:
        images = _grouped(name for name in names if not name.is_label)
        return _Matched(images, {name.key: [name] for name in unmatched}, by_image, notes)
    if names := read_unlike_names(folder, used, roles.labels):
        images, labels = _grouped(n for n in names if not n.is_label), _grouped(n for n in names if n.is_label)
        return _Matched(images, labels, {}, notes)
    an_image, a_label = (next(iter(group.values()))[0].path.name for group in (images, labels))
    raise DataError(
        f"{folder}: no label map has an image of its name (such as {a_label} and {an_image}); say which files are "
        "meant with --label-files and --image-files, name them alike, or write a table with columns id, image and label"
    )


def _with_masks(
    folder: Path, files: Sequence[Path], names: list[Name], labels: Collection[Path] | None, are_maps: bool
) -> tuple[list[Name], Mapping[str, Mapping[str, Path]], list[Name]]:
    """Names read so that label files are masks of images, with these masks, and the label files of no image."""
    for suffixes in (False, True):  # four digits at the end of an image's name are rather its case's than a channel
        told = [read_name(folder, path, suffixes, labels) for path in files]
        masks, unmatched = masks_of_images(
            {name.key for name in told if not name.is_label}, [name for name in told if name.is_label], are_maps
        )
        if masks:
            return told, masks, unmatched
    return names, {}, []


def _refuse_shared(folder: Path, cases: Sequence[FoundCase], labelled: bool) -> None:
    """One id for several files; where nothing is known to be a label map, that is most likely why."""
    claims: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        claims[case.id].append(str(case.images[0].relative_to(folder)))
    if not labelled and all(len(files) > 1 for files in claims.values()):
        places = ", ".join(sorted({str(Path(file).parent) for files in claims.values() for file in files}))
        raise DataError(
            f"{folder}: {places} hold files of the same names, and no name says which are label maps; call their "
            "folder labels (or masks, seg, gt), name them with --label-files, or write a table with columns id, image "
            "and label"
        )
    refuse_shared_ids(claims)


def _left_out(folder: Path, files: Sequence[Path], used: Sequence[Path]) -> list[str]:
    if not (rest := sorted(set(files) - set(used))):
        return []
    return [
        f"{len(rest)} files lie below the folders of cases, such as {rest[0].relative_to(folder)}; left out, since "
        "each of these folders has its images and label map"
    ]


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
    refuse_shared_ids(_grouped_paths(case, group), "or name those that are meant with --image-files")
    if len(channels) == len(group) == 1:
        images: tuple[Path, ...] = (first.path,)
        if channels[0] not in ("", first.channel):
            problems.append(Problem(case, f"{first.path.name}: most cases have {channels[0]}; look whether it is that"))
    else:
        images = channel_stack(case, {name.channel: name.path for name in group}, channels, problems)
        others = [name.path.name for name in group if name.channel not in channels]
        problems += [Problem(case, f"{name}: most cases have no such channel; left out") for name in others]
    label = labels[0].path if labels else None
    testing = label is None or is_testing(folder, first.path) or is_testing(folder, label)
    return FoundCase(
        id=case,
        images=images,
        label=label,
        split="testing" if testing else "training",
        subject=first.subject,
    )


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


def _channel(name: str) -> Channel:
    """A channel by what its files' names say; a bare number is only counted."""
    words = f"channel_{int(name)}" if name.isdigit() else name or "image"
    return Channel(name=words, modality=modality_of(name))


def _named_for_others(folder: Path, cases: Sequence[FoundCase]) -> list[Problem]:
    """Label maps whose names begin with the id of another case, and not with that of their own (`c1/c2_seg`)."""
    subjects = {case.subject or case.id for case in cases}
    problems = []
    for case in cases:
        words = words_of(stem(case.label)) if case.label else []
        named = subjects & {"_".join(words[:count]) for count in range(1, len(words) + 1)}
        if named and not named & {case.id, case.subject} and case.label:
            found = f"its label map is {case.label.relative_to(folder)}, which names {', '.join(sorted(named))}"
            problems.append(Problem(case.id, f"{found}; look whether it lies in the right place"))
    return problems


def _label_maps_among(folder: Path, cases: Sequence[FoundCase]) -> list[Problem]:
    """Testing cases without a label that look like label maps themselves; a few cases are looked at."""
    unlabelled = [case.images[0] for case in cases if case.label is None and not case.masks]
    found = [path for path in unlabelled[-_LOOKED_AT:] if content_of(path) is Content.LABELS]
    cure = "if it is one, or a prediction, say what is meant with --label-files and --image-files"
    said = f"is a testing case, and has the voxels of a label map; {cure}"
    return [Problem(str(path.relative_to(folder)), said) for path in found]


def _notes(folder: Path, cases: Sequence[FoundCase], channels: Sequence[str]) -> list[str]:
    notes = []
    places = [[path.parent for path in case.images] for case in cases]
    if several := next((own for own in places if len(set(own)) > 1), []):
        shown = some_of(str(place.relative_to(folder)) for place in sorted(set(several)))
        notes.append(
            f"a case's images lie in several folders ({shown}), and all are channels; --image-files takes some"
        )
    if unlabelled := [case.id for case in cases if case.label is None and not case.masks]:
        notes.append(f"{len(unlabelled)} images without a label map became testing cases: {', '.join(unlabelled)}")
    if len(channels) > 1:
        notes.append(f"channels by file name: {', '.join(_channel(name).name for name in channels)}")
    return notes
