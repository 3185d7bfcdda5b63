"""Plain folders of images and label maps, matched by their names.

Read are two folders (`images/`, `labels/`; imagesTr, labelsTr, imagesTs), one folder (`c1.nii.gz`, `c1_seg.nii.gz`;
`img01`, `label01`) and one folder per case (`c1/t1.nii.gz`, `c1/seg.nii.gz`; with label files below it:
`case_folders.py`). What is a label map: `roles.py`; how a path is read: `naming.py`; what goes together: `matching.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import Problem
from pipeline.dataset.loaded_cases import Channel
from pipeline.layouts.case_ids import refuse_shared_ids
from pipeline.layouts.channel_files import channel_stack
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, some_of
from pipeline.layouts.folders.channel_grouping import common_channels
from pipeline.layouts.folders.duplicate_case_ids import paths_by_case_and_channel, refuse_shared_case_ids
from pipeline.layouts.folders.extra_images import drop_extra_images
from pipeline.layouts.folders.file_names import Name
from pipeline.layouts.folders.match_labels_to_images import match
from pipeline.layouts.folders.metadata_table import add_table_columns
from pipeline.layouts.folders.name_vocabulary import is_testing
from pipeline.layouts.folders.split_images_and_labels import NO_PATTERNS, FilePatterns
from pipeline.layouts.folders.subject_folders import add_subjects
from pipeline.layouts.folders.suspicious_cases import find_suspicious_cases
from pipeline.layouts.init.declared_folds import with_validation_folder


def read(folder: Path, chosen: FilePatterns = NO_PATTERNS) -> DatasetListing:
    """Pairs images with label maps; an image without one becomes a testing case, and is said aloud.

    Raises a DataError where there is no image, or where two files would become one case (all are named), and a
    ConfigError where what is chosen fits no file.
    """
    matched = match(folder, chosen)
    labels, masks = matched.labels, matched.masks
    images, notes = (matched.images, []) if chosen.image_files else drop_extra_images(matched.images)
    refuse_shared_ids(
        {key: [str(name.path) for name in group] for key, group in labels.items()},
        "or name those that are meant with --label-files",
    )
    channels = common_channels(images, labels.keys() & images.keys() or images.keys())
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
    cases = with_validation_folder(folder, add_subjects(folder, cases))
    refuse_shared_case_ids(folder, cases, labelled=bool(labels or masks))
    found = DatasetListing(
        layout="folders",
        folder=folder,
        name=folder.name,
        channels=tuple(_channel(name if len(channels) > 1 else "") for name in channels),
        cases=tuple(cases),
        notes=(*matched.notes, *notes, *_notes(folder, cases, channels)),
        problems=(*problems, *find_suspicious_cases(folder, cases)),
    )
    return add_table_columns(found)


def _case(
    folder: Path, group: Sequence[Name], labels: Sequence[Name], channels: Sequence[str], problems: list[Problem]
) -> ListedCase:
    """The case of one key: its only image, or its channels in order; others that lie beside these are named."""
    first = next((name for name in group if name.channel == channels[0]), group[0])
    case = first.id if len(channels) == 1 else first.shared_id
    refuse_shared_ids(paths_by_case_and_channel(case, group), "or name those that are meant with --image-files")
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
    return ListedCase(
        id=case,
        images=images,
        label=label,
        split="testing" if testing else "training",
        subject=first.subject,
    )


def _channel(name: str) -> Channel:
    """A channel by what its files' names say; a bare number is only counted."""
    words = f"channel_{int(name)}" if name.isdigit() else name or "image"
    return Channel(name=words, modality=modality_of(name))


def _notes(folder: Path, cases: Sequence[ListedCase], channels: Sequence[str]) -> list[str]:
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
