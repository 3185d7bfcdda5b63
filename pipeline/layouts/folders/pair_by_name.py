"""Which files of plain folders belong to one case, by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.folders.case_folder_ids import ids_of_folders
from pipeline.layouts.folders.channel_grouping import (
    as_case,
    beginnings_of,
    labelled,
    split_labelled_channels,
    with_more_channels,
)
from pipeline.layouts.folders.file_names import Name, read_name
from pipeline.layouts.folders.find_case_folders import one_folder_per_case
from pipeline.layouts.folders.name_vocabulary import (
    compatible_scan_tokens,
    is_other_scan,
    is_side_or_time,
    is_split_name,
    numbers_in,
    without_numbers,
)
from pipeline.layouts.folders.subject_folders import subjects_of_folders

_COUNTING_END = re.compile(r"\d+$|(?<=[a-z_-])[A-Z]$")
_CONTRAST = {"pre", "post"}
"""Before and after contrast medium, as channels; else before and after something."""
_MOST_CHANNELS = 8
"""Images of one label map, where they are known by their beginning alone."""


def read_names(
    folder: Path, files: Sequence[Path], labels: Collection[Path] | None = None
) -> tuple[list[Name], list[str]]:
    """The files' names, read in the way that fits the folder, and what was assumed.

    labels: the label maps, where names do not tell.

    Four digits at the end of images' names are a channel (`c1_0000`), unless label maps match better where they are
    part of the case's name (`case_0001` with a label map `case_0001`). Then a folder may be a case.
    """
    as_channels, as_names = ([read_name(folder, path, own, labels) for path in files] for own in (True, False))
    names = as_names if matches(as_names) >= max(matches(as_channels), 1) else as_channels
    if one_folder_per_case(folder, names):
        return names_from_case_folders(folder, {name: name.path.parent for name in names})
    if matches(names):
        return split_labelled_channels(with_more_channels(names, labelled(names))), []
    guesses = (
        *map(_by_numbers, (as_channels, as_names)),
        *map(_by_beginning, (as_names, _without_folders(as_names))),
    )
    return next((guess for guess in guesses if matches(guess)), names), []


def names_from_case_folders(folder: Path, case_of: Mapping[Name, Path]) -> tuple[list[Name], list[str]]:
    """Names of files whose case is a folder, and what was assumed about persons."""
    cases = set(case_of.values())
    ids = ids_of_folders(folder, cases)
    subjects, notes = subjects_of_folders(folder, cases)
    told = [name.of_case_folder(folder, case, ids[case], subjects.get(case, "")) for name, case in case_of.items()]
    return told, notes


def read_unlike_names(folder: Path, files: Sequence[Path], labels: Collection[Path] | None = None) -> list[Name]:
    """For where `read_names` matches nothing, and label maps are no masks either: equal names in different folders, or
    names that all label maps end in one word (`c1_gd`). Empty where that matches nothing.
    """
    as_channels, as_names = ([read_name(folder, path, own, labels) for path in files] for own in (True, False))
    guesses = (
        *(_without_folders(names) for names in (as_channels, as_names) if _folders_go_together(names)),
        *_by_ending(as_names),
    )
    found = next((list(guess) for guess in guesses if matches(guess) and _tell_all_apart(guess)), [])
    return split_labelled_channels(with_more_channels(found, labelled(found)))


def _without_folders(names: Sequence[Name]) -> list[Name]:
    return [replace(name, key=name.key.rsplit("/", 1)[-1]) for name in names]


def _tell_all_apart(names: Sequence[Name]) -> bool:
    """Whether no two are the same file of the same case, each label map has images, and no others begin like these."""
    told = {(name.key, name.channel, name.is_label) for name in names}
    images, labels = ({name.key for name in names if name.is_label == kind} for kind in (False, True))
    longer = any(not labels.isdisjoint(beginnings_of(image)) for image in images)
    return len(told) == len(names) and labels <= images and not longer


def _folders_go_together(names: Sequence[Name]) -> bool:
    """Whether the label maps of each folder's images lie in one folder, of the same time, side and part of the data.

    Several may hold a structure or a rater each.
    """
    labels = {(name.key.rsplit("/", 1)[-1], name.channel): name for name in names if name.is_label}
    homes: dict[str, set[str]] = defaultdict(set)
    for image in names:
        key = image.key.rsplit("/", 1)[-1]
        label = labels.get((key, image.channel)) or labels.get((key, ""))
        if image.is_label or label is None:
            continue
        homes[image.place].add("/".join(part for part in label.place.split("/") if not is_split_name(part)))
        if not same_session(image, label):
            return False
    return all(len(places) == 1 for places in homes.values())


def same_session(image: Name, label: Name) -> bool:
    """False for `train/images/1` and `test/labels/1`, `baseline/anna` and `followup/anna`, `p1_left` and `p1_right`."""
    if image.above is not None and label.above is not None and image.above != label.above:
        return False
    places = [name.place.split("/") for name in (image, label)]
    if max(map(len, places)) > 1 and any(_are_siblings(here, there) for here in places[0] for there in places[1]):
        return False
    return compatible_scan_tokens(image.place, label.place) and compatible_scan_tokens(image.id, label.id)


def _are_siblings(here: str, there: str) -> bool:
    """True for `site1` and `site2`, `siteA` and `siteB`."""
    here_base, there_base = (_COUNTING_END.sub("", part) for part in (here, there))
    return here != there and here_base == there_base != ""


def _by_ending(names: Sequence[Name]) -> Iterator[Sequence[Name]]:
    """Without the word that all label maps end with, and no image does: `c1_gd` as that of `c1`, or of `c1_t1`.

    None where the word tells scans of one person apart (`c1_left`, `c1_followup`), or is one label map's alone.
    """
    ending = _common_ending([name.key.rsplit("/", 1)[-1].split("_") for name in names if name.is_label])
    if not ending:
        return
    cut = [replace(name, key=name.key.removesuffix(f"_{ending}")) if name.is_label else name for name in names]
    for guess in (cut, _without_folders(cut) if _folders_go_together(cut) else []):
        yield _by_beginning(guess)
        yield guess
        whose = {name.key: name.shared_id for name in guess if name.channel}
        yield [as_case(name, whose) for name in guess]


def _common_ending(labels: Sequence[Sequence[str]]) -> str:
    """The words that all of several label maps end with, up to one that tells scans apart."""
    ending: list[str] = []
    for last in zip(*(reversed(words[1:]) for words in labels), strict=False):
        if len(labels) < 2 or len(set(last)) > 1 or is_other_scan(last[0]) or last[0].isdigit():
            break
        ending.insert(0, last[0])
    return "_".join(ending)


def _by_numbers(names: Sequence[Name]) -> list[Name]:
    """`scan_12` and `labels/p12_lab` as one case, where numbers tell all images and all label maps apart; else none.

    None too where the numbers of an image go on after those of a label map (`p12_t2` may be of 12 as `p12_dwi` is),
    where both kinds are called by many words, which may be persons, and where folders are of different parts.
    """
    keyed = [replace(name, key=numbers_in(name.id)) for name in names]
    images, labels = ({name.key: name for name in keyed if name.is_label == kind} for kind in (False, True))
    if not all(images) or not all(labels) or len(images) + len(labels) < len(names):
        return []
    told = [{without_numbers(name.id) for name in several.values()} for several in (images, labels)]
    longer = {" ".join(numbers[:n]) for numbers in map(str.split, images) for n in range(1, len(numbers))}
    if longer & labels.keys():
        return []
    placed = {name.path: name for name in names}
    pairs = [(placed[images[key].path], placed[labels[key].path]) for key in images.keys() & labels.keys()]
    if min(map(len, told)) > 1 and any(_letters(image) != _letters(label) for image, label in pairs):
        return []
    return keyed if all(same_session(*pair) for pair in pairs) else []


def _letters(name: Name) -> str:
    return without_numbers(name.id).replace("_", "").lower()


def _by_beginning(names: Sequence[Name]) -> list[Name]:
    """`c1_venous` and `c1_arterial` as channels of `c1_mask`, where every label map has images that begin like it.

    None where what follows only counts, or is a side or a time, or one label map has many images: these are cases.
    """
    keys = [name.key for name in names if name.is_label]
    labels = set(keys)
    beginning = {
        name.path: next((key for key in beginnings_of(name.key) if key in labels), "")
        for name in names
        if not name.is_label
    }
    rests = {name.key[len(label) + 1 :] for name in names if (label := beginning.get(name.path))}
    most = max(Counter(label for label in beginning.values() if label).values(), default=0)
    if len(labels) < len(keys) or labels - set(beginning.values()) or most > _MOST_CHANNELS:
        return []
    if all(rest.isdigit() or (is_side_or_time(rest) and rest.lower() not in _CONTRAST) for rest in rests):
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


def matches(names: Sequence[Name]) -> int:
    """How many cases have an image and a label map."""
    return len({name.key for name in names if name.is_label} & {name.key for name in names if not name.is_label})
