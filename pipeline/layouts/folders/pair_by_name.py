"""Which files of plain folders belong to one case, by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pipeline.layouts.folders.channel_grouping import labelled, split_labelled_channels, with_more_channels
from pipeline.layouts.folders.file_names import Name, beginnings_of, read_name, without_folders
from pipeline.layouts.folders.find_case_folders import ids_of_folders, one_folder_per_case
from pipeline.layouts.folders.folders_go_together import folders_go_together
from pipeline.layouts.folders.pair_by_number import pair_by_number
from pipeline.layouts.folders.pair_by_prefix import pair_by_prefix
from pipeline.layouts.folders.pair_by_suffix import pair_by_suffix
from pipeline.layouts.folders.subject_folders import subjects_of_folders


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
        *map(pair_by_number, (as_channels, as_names)),
        *map(pair_by_prefix, (as_names, without_folders(as_names))),
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
        *(without_folders(names) for names in (as_channels, as_names) if folders_go_together(names)),
        *pair_by_suffix(as_names),
    )
    found = next((list(guess) for guess in guesses if matches(guess) and _tell_all_apart(guess)), [])
    return split_labelled_channels(with_more_channels(found, labelled(found)))


def _tell_all_apart(names: Sequence[Name]) -> bool:
    """Whether no two are the same file of the same case, each label map has images, and no others begin like these."""
    told = {(name.key, name.channel, name.is_label) for name in names}
    images, labels = ({name.key for name in names if name.is_label == kind} for kind in (False, True))
    longer = any(not labels.isdisjoint(beginnings_of(image)) for image in images)
    return len(told) == len(names) and labels <= images and not longer


def matches(names: Sequence[Name]) -> int:
    """How many cases have an image and a label map."""
    return len({name.key for name in names if name.is_label} & {name.key for name in names if not name.is_label})
