"""Which files of plain folders belong together: label maps, or masks per structure, by the cases of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.layouts.folders.file_names import Groups, Name
from pipeline.layouts.folders.find_case_folders import are_called_alike, cases_of_files, drop_files_below_cases
from pipeline.layouts.folders.pair_by_name import names_from_case_folders, read_names, read_unlike_names
from pipeline.layouts.folders.split_images_and_labels import FilePatterns, roles_of
from pipeline.layouts.folders.structure_masks import labels_in_case_folders, match_masks
from pipeline.layouts.list_files import image_files


@dataclass(frozen=True)
class Matched:
    """Files by case: images, label maps (some perhaps of no image), or a mask per structure; and what was assumed."""

    images: Groups
    labels: Groups
    masks: Mapping[str, Mapping[str, Path]]
    notes: Sequence[str]


def match(folder: Path, chosen: FilePatterns) -> Matched:
    """Label maps, else masks per structure, by the cases of images; a DataError where they belong to none."""
    roles = roles_of(folder, image_files(folder), chosen)
    used = roles.files if chosen else drop_files_below_cases(folder, roles.files, roles.labels)
    names, assumed = read_names(folder, used, roles.labels)
    notes = (*_left_out(folder, roles.files, used), *roles.notes, *assumed)
    images, labels = _grouped(name for name in names if not name.is_label), _grouped(n for n in names if n.is_label)
    if not images:
        why = "as --label-files and --image-files say" if chosen else "by their names"
        raise DataError(f"{folder}: has no images ({len(names)} files are label maps {why})")
    plain = Matched(images, labels, {}, notes)
    if not labels or (labels.keys() & images.keys() and not are_called_alike(images)):
        return plain
    case_of = cases_of_files(folder, names)
    are_maps = chosen.label_files is not None
    maps, masks = labels_in_case_folders(folder, names, case_of, are_maps)
    if maps or masks:
        told, assumed = names_from_case_folders(
            folder, {name: case_of[name.path] for name in names if not name.is_label}
        )
        return Matched(_grouped(told), {case: [name] for case, name in maps.items()}, masks, (*notes, *assumed))
    if labels.keys() & images.keys():
        return plain
    names, by_image, unmatched = match_masks(folder, used, roles.labels, are_maps)
    if by_image:
        images = _grouped(name for name in names if not name.is_label)
        return Matched(images, {name.key: [name] for name in unmatched}, by_image, notes)
    if names := read_unlike_names(folder, used, roles.labels):
        images, labels = _grouped(n for n in names if not n.is_label), _grouped(n for n in names if n.is_label)
        return Matched(images, labels, {}, notes)
    an_image, a_label = (next(iter(group.values()))[0].path.name for group in (images, labels))
    options = "" if chosen else "say which files are meant with --label-files and --image-files, name them alike, or "
    raise DataError(
        f"{folder}: no label map has an image of its name (such as {a_label} and {an_image}); {options}write a table "
        "with columns id, image and label"
    )


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
