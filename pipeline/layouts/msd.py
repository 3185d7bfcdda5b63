"""Medical Segmentation Decathlon folders: a dataset.json that lists every case (MONAI data lists too)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError, Problem
from pipeline.base.files import read_json
from pipeline.data.cases import Channel
from pipeline.data.formats import image_ending
from pipeline.layouts.found import Found, FoundCase, Split, ids_of, modality_of, stem
from pipeline.layouts.labelling import from_descriptor

_LISTS: dict[str, Split] = {"training": "training", "validation": "training", "test": "testing", "testing": "testing"}
FIRST_FOLD = 0


def read(folder: Path) -> Found:
    """Reads `dataset.json`: channels from `modality`, labels in either direction, and the cases that it lists.

    Paths are relative to the descriptor. Items are strings or dicts and may carry MONAI's `fold`; what stands under
    `validation` is validated in fold 0. Raises a DataError where the descriptor is not of this kind.
    """
    path = folder / "dataset.json"
    descriptor = read_json(path)
    problems: list[Problem] = []
    notes: list[str] = []
    channels = tuple(_channels(descriptor))
    listed = [(key, _entry(path, item)) for key in _LISTS for item in descriptor.get(key) or ()]
    ids = ids_of([Path(entry["image"][0]) for _, entry in listed])
    cases = [
        _case(folder, case, entry, _LISTS[key], FIRST_FOLD if key == "validation" else None, channels, problems)
        for case, (key, entry) in zip(ids, listed, strict=True)
    ]
    if not cases:
        raise DataError(f'{path}: \'training\' lists no cases; expected [{{"image": ..., "label": ...}}, ...]')
    _compare_counts(descriptor, cases, problems)
    if "labels" not in descriptor:
        notes.append("dataset.json declares no labels")
    return Found(
        layout="msd",
        folder=folder,
        name=str(descriptor.get("name") or folder.name),
        channels=channels,
        cases=tuple(cases),
        labelling=from_descriptor(descriptor["labels"], str(path)) if descriptor.get("labels") else None,
        description=str(descriptor.get("description", "")),
        licence=str(descriptor.get("licence") or descriptor.get("license") or ""),
        source=str(descriptor.get("reference", "")),
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _channels(descriptor: Mapping[str, Any]) -> list[Channel]:
    """Channels in the order of their numbers; one unnamed MR channel where the descriptor says nothing."""
    named = descriptor.get("modality") or descriptor.get("channel_names") or {"0": "image"}
    if not isinstance(named, Mapping):
        named = dict(enumerate([named] if isinstance(named, str) else named))
    names = [str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0]))]
    return [Channel(name=name, modality=modality_of(name)) for name in distinct(names)]


def distinct(names: Sequence[str]) -> list[str]:
    """Names made unequal by a number where they repeat (Task05 has two channels, some lists call both `MRI`)."""
    return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]


def _entry(path: Path, item: Any) -> dict[str, Any]:
    """An item of a list as a dict whose `image` is a list of paths."""
    entry = {"image": item} if isinstance(item, (str, list)) else dict(item)
    if not entry.get("image"):
        raise DataError(f"{path}: an item has no 'image': {item!r}")
    return entry | {"image": [entry["image"]] if isinstance(entry["image"], str) else entry["image"]}


def _case(
    folder: Path,
    case: str,
    entry: Mapping[str, Any],
    split: Split,
    fold: int | None,
    channels: Sequence[Channel],
    problems: list[Problem],
) -> FoundCase:
    images = tuple(folder / relative for relative in entry["image"])
    label = folder / entry["label"] if entry.get("label") else None
    if label is not None and not label.exists():
        problems.append(Problem(case, f"listed in dataset.json, but not there: {label.name}"))
    return FoundCase(
        id=case,
        images=_existing_channels(case, images, channels, problems),
        label=label,
        split=split,
        fold=int(entry["fold"]) if "fold" in entry else fold,
        extra={key: value for key, value in entry.items() if key not in {"image", "label", "fold"}},
    )


def _existing_channels(
    case: str, images: tuple[Path, ...], channels: Sequence[Channel], problems: list[Problem]
) -> tuple[Path, ...]:
    """The listed file, or the channel files `x_0000…` that stand for a listed `x` (nnU-Net's first version)."""
    if len(images) == 1 and not images[0].exists():
        ending = image_ending(images[0])
        stack = tuple(images[0].with_name(f"{stem(images[0])}_{i:04d}{ending}") for i in range(len(channels)))
        if stack[0].exists():
            images = stack
    missing = [path.name for path in images if not path.exists()]
    if missing:
        problems.append(Problem(case, f"listed in dataset.json, but not there: {', '.join(missing)}"))
    return images


def _compare_counts(descriptor: Mapping[str, Any], cases: Sequence[FoundCase], problems: list[Problem]) -> None:
    for key, split in (("numTraining", "training"), ("numTest", "testing")):
        count = sum(case.split == split for case in cases)
        if str(descriptor.get(key, count)) != str(count):
            problems.append(Problem("dataset.json", f"{key} is {descriptor[key]}, but {count} cases are listed"))
