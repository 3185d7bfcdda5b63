"""Masks of single structures, and the cases that they belong to by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pipeline.io.image_file_names import stem
from pipeline.layouts.folders.channel_grouping import with_more_channels
from pipeline.layouts.folders.file_names import Name, read_name
from pipeline.layouts.folders.label_maps_by_content import has_several_values
from pipeline.layouts.folders.name_vocabulary import (
    is_channel_name,
    is_split_name,
)
from pipeline.layouts.folders.several_annotators import refuse_several_annotators, without_annotator

Masks = dict[str, dict[str, Path]]

_COUNTED = re.compile(r"\d+|[AB]", re.I)


def labels_in_case_folders(
    folder: Path, names: Sequence[Name], case_of: Mapping[Path, Path], are_maps: bool
) -> tuple[dict[str, Name], Masks]:
    """Case folder to its label map, or to structure to mask: of the two, one is empty. Both where no folder is a case.

    case_of: of each file its case's folder, as `cases_of_files` gives them. are_maps: the user says that they are.

    A case's only label file is its label map where its name says no more than that (`seg/seg`, `labels/c1`), or is the
    same in all cases and one of them holds several values (`labels/organs`).
    """
    if not case_of:
        return {}, {}
    files: dict[str, list[Name]] = defaultdict(list)
    for name in (name for name in names if name.is_label):
        files[str(case_of[name.path].relative_to(folder))].append(name)
    if files and all(len(own) == 1 for own in files.values()) and (are_maps or _are_maps(folder, files)):
        return {case: own[0] for case, own in files.items()}, {}
    masks: Masks = defaultdict(dict)
    for case, own in files.items():
        refuse_several_annotators(case, [name.path for name in own])
        for name in own:
            structure = name.structure_in(folder / case) or stem(name.path)
            if structure in masks[case]:
                return {}, {}
            masks[case][structure] = name.path
    return {}, dict(masks)


def masks_of_images(cases: Collection[str], labels: Sequence[Name], are_maps: bool) -> tuple[Masks, list[Name]]:
    """Key of an image to structure to file, and the label files of no image.

    `labels/liver/c1`, `masks/c1/liver` and `c1_liver_mask` are the liver of `c1`. No masks where half of the files are
    of no image, where two are the same structure of one, where structures are people who drew them, or where there is
    one structure of several values. are_maps: as for `labels_in_case_folders`.
    """
    masks: Masks = defaultdict(dict)
    others = []
    for name in labels:
        case, structure = _case_and_structure(cases, name.key)
        if not case or not structure:
            others.append(name)
        elif structure in masks[case]:
            return {}, []
        else:
            masks[case][structure] = name.path
    structures = {structure for own in masks.values() for structure in own}
    if 2 * len(others) >= len(labels) or all(_names_nothing(structure) for structure in structures):
        return {}, []
    if all(is_channel_name(structure.split("_")[0]) for structure in structures):  # `1_t1_seg` is of the scan `1_t1`
        return {}, []
    if len(structures) == 1 and (are_maps or any(has_several_values(*own.values()) for own in masks.values())):
        return {}, []
    return dict(masks), others


def _names_nothing(structure: str) -> bool:
    """True for a mask that is only counted, or named by who drew it, or by a part of the data set."""
    return bool(_COUNTED.fullmatch(structure)) or is_split_name(structure) or without_annotator(structure) == ("", True)


def _case_and_structure(cases: Collection[str], key: str) -> tuple[str, str]:
    place, _, last = key.rpartition("/")
    if place and last in cases:
        return last, place.replace("/", "_")
    if place in cases:
        return place, last
    case = max((one for one in cases if last.startswith(f"{one}_")), key=len, default="")
    return case, last[len(case) + 1 :]


def _are_maps(folder: Path, files: Mapping[str, Sequence[Name]]) -> bool:
    """Whether cases with one label file each have label maps, and not masks of one structure."""
    structures = {name.structure_in(folder / case) for case, own in files.items() for name in own}
    if len(structures) > 1:
        return False
    return structures == {""} or any(has_several_values(name.path) for own in files.values() for name in own)


def match_masks(
    folder: Path, files: Sequence[Path], labels: Collection[Path] | None, are_maps: bool
) -> tuple[list[Name], Mapping[str, Mapping[str, Path]], list[Name]]:
    """Names read so that label files are masks of images, with these masks, and the label files of no image."""
    for suffixes in (False, True):  # four digits at the end of an image's name are rather its case's than a channel
        told = [read_name(folder, path, suffixes, labels) for path in files]
        masks, unmatched = masks_of_images(
            {name.key for name in told if not name.is_label}, [name for name in told if name.is_label], are_maps
        )
        if masks:
            return with_more_channels(told, masks), masks, unmatched
    return [], {}, []
