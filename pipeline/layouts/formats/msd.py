"""Medical Segmentation Decathlon folders: a dataset.json that lists every case (MONAI data lists too)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.dataset.loaded_cases import Channel
from pipeline.io.image_file_names import image_ending, stem
from pipeline.layouts.case_ids import ids_of
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, Split
from pipeline.layouts.formats.dataset_json import NAME, DatasetJson, Item, read_dataset_json
from pipeline.layouts.init.infer_channels import UNNAMED
from pipeline.layouts.personal_columns import without_personal

VALIDATION_FOLD = 0


def read(folder: Path) -> DatasetListing:
    """Reads `dataset.json`: channels from `modality`, labels in either direction, and the cases that it lists.

    Paths are relative to the descriptor. Items are strings or dicts and may carry MONAI's `fold`; what stands under
    `validation` is validated in fold 0. Raises a DataError where the descriptor is not of this kind.
    """
    path = folder / NAME
    descriptor = read_dataset_json(path)
    problems: list[Problem] = []
    notes: set[str] = set() if descriptor.labels else {"dataset.json declares no labels"}
    channels = descriptor.channels or (Channel(name=UNNAMED),)
    lists: list[tuple[Sequence[Item], Split, int | None]] = [
        (descriptor.training, "training", None),
        (descriptor.validation, "training", VALIDATION_FOLD),
        (descriptor.testing, "testing", None),
    ]
    listed = [(item, split, fold) for items, split, fold in lists for item in items]
    if not listed:
        raise DataError(f'{path}: \'training\' lists no cases; expected [{{"image": ..., "label": ...}}, ...]')
    ids = ids_of([Path(item.image[0]) for item, _, _ in listed])
    cases = tuple(
        ListedCase(
            id=case,
            images=_existing_channels(case, tuple(folder / image for image in item.image), len(channels), problems),
            label=_existing_label(case, folder, item, problems),
            split=split,
            fold=fold if item.fold is None else item.fold,
            extra=without_personal(item.model_extra or {}, notes),
        )
        for case, (item, split, fold) in zip(ids, listed, strict=True)
    )
    _compare_counts(descriptor, cases, problems)
    return DatasetListing(
        layout="msd",
        folder=folder,
        name=descriptor.name or folder.name,
        channels=channels,
        cases=cases,
        labelling=descriptor.labelling(path, labelled=any(case.label for case in cases)),
        description=descriptor.description,
        licence=descriptor.licence,
        source=descriptor.reference,
        notes=tuple(sorted(notes)),
        problems=tuple(problems),
    )


def _existing_label(case: str, folder: Path, item: Item, problems: list[Problem]) -> Path | None:
    label = folder / item.label if item.label else None
    if label is not None and not label.exists():
        problems.append(Problem(case, f"listed in dataset.json, but not there: {label.name}"))
    return label


def _existing_channels(case: str, images: tuple[Path, ...], channels: int, problems: list[Problem]) -> tuple[Path, ...]:
    """The listed file, or the channel files `x_0000…` that stand for a listed `x` (nnU-Net's first version)."""
    if len(images) == 1 and not images[0].exists():
        ending = image_ending(images[0])
        stack = tuple(images[0].with_name(f"{stem(images[0])}_{i:04d}{ending}") for i in range(channels))
        if stack[0].exists():
            images = stack
    missing = [path.name for path in images if not path.exists()]
    if missing:
        problems.append(Problem(case, f"listed in dataset.json, but not there: {', '.join(missing)}"))
    return images


def _compare_counts(descriptor: DatasetJson, cases: Sequence[ListedCase], problems: list[Problem]) -> None:
    promised = {"numTraining": (descriptor.num_training, "training"), "numTest": (descriptor.num_test, "testing")}
    for key, (number, split) in promised.items():
        count = sum(case.split == split for case in cases)
        if number is not None and number != count:
            problems.append(Problem(NAME, f"{key} is {number}, but {count} cases are listed"))
