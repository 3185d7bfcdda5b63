"""nnU-Net raw folders: dataset.json with `channel_names`, files `CASE_0000`, or explicit paths under `dataset`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.io.image_file_names import IMAGE_ENDINGS
from pipeline.layouts.channel_files import by_channel, channel_stack
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase
from pipeline.layouts.formats.dataset_json import NAME, DatasetJson, Listed, read_dataset_json
from pipeline.layouts.formats.nnunet_splits import read_folds
from pipeline.layouts.label_names import LabelNames
from pipeline.layouts.list_files import image_files


def read(folder: Path) -> DatasetListing:
    """Reads imagesTr, labelsTr, imagesTs (labelsTs where it is there) and `splits_final.json` where it is found."""
    path = folder / NAME
    descriptor = read_dataset_json(path)
    listed, channels = descriptor.dataset, descriptor.channels
    labelled = any(_files(folder / name) for name in ("labelsTr", "labelsTs")) or any(e.label for e in listed.values())
    labelling = descriptor.labelling(path, labelled)
    needed = {
        "channel_names": (channels, '{"0": "CT"}'),
        "labels": (labelling or not labelled, '{"background": 0, "liver": 1}'),
    }
    absent = [key for key, (given, _) in needed.items() if not given]
    if absent:
        problems = [Problem(key, f"is missing; expected for instance {needed[key][1]}") for key in absent]
        raise DataError(problem_list(str(path), problems))
    notes: list[str] = []
    problems = []
    cases = _listed(folder, listed, problems) if listed else _training(folder, len(channels), problems)
    cases += _testing(folder, len(channels), problems)
    if not cases:
        raise DataError(_nothing_in(folder))
    notes += _class_order_note(descriptor, labelling or LabelNames())
    notes += [
        f"channel {channel.name}: nnU-Net does not normalise it; set plan.normalisation: {{{channel.name}: none}}"
        for channel in channels
        if channel.name.lower().startswith("nonorm")
    ]
    folds = read_folds(folder, [case.id for case in cases if case.split == "training"], notes)
    count = sum(case.split == "training" for case in cases)
    if descriptor.num_training not in (None, count):
        problems.append(Problem(NAME, f"numTraining is {descriptor.num_training}, but {count} cases were found"))
    return DatasetListing(
        layout="nnunet",
        folder=folder,
        name=descriptor.name or folder.name,
        channels=channels,
        cases=tuple(_with_fold(case, folds) for case in cases),
        labelling=labelling,
        description=descriptor.description,
        licence=descriptor.licence,
        source=descriptor.reference,
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _nothing_in(folder: Path) -> str:
    """Why there is no case, with the endings of the files that are there: nnU-Net reads .png and .tif too."""
    files = [path for name in ("imagesTr", "imagesTs") for path in (folder / name).glob("*")]
    endings = Counter(path.suffix.lower() or "no ending" for path in files if not path.name.startswith("."))
    if not endings:
        return f"{folder}: there is no image in imagesTr or imagesTs; copy them there as CASE_0000.nii.gz"
    found = ", ".join(f"{count} of {ending}" for ending, count in endings.most_common())
    return (
        f"{folder}: no file in imagesTr or imagesTs is of a kind that can be read (found: {found}); convert them to "
        f"one of {', '.join(IMAGE_ENDINGS)}"
    )


def _listed(folder: Path, listed: Mapping[str, Listed], problems: list[Problem]) -> list[ListedCase]:
    """Cases under `dataset`; their paths are absolute or relative to the folder."""
    cases = []
    for name, entry in listed.items():
        label = folder / entry.label if entry.label else None
        case = ListedCase(id=name, images=tuple(folder / image for image in entry.images), label=label)
        if missing := [str(file) for file in case.files if not file.exists()]:
            problems.append(Problem(name, f"listed under 'dataset', but not there: {', '.join(missing)}"))
        cases.append(case)
    return cases


def _training(folder: Path, channels: int, problems: list[Problem]) -> list[ListedCase]:
    images = by_channel(_files(folder / "imagesTr"), channels)
    labels = labels_by_case(_files(folder / "labelsTr"))
    problems += [
        Problem(case, f"label {labels[case].name} has no image") for case in sorted(labels.keys() - images.keys())
    ]
    problems += [
        Problem(case, "has no label in labelsTr; taken as a testing case")
        for case in sorted(images.keys() - labels.keys())
    ]
    return [
        ListedCase(
            id=case,
            images=channel_stack(case, files, suffixes(channels), problems),
            label=labels.get(case),
            split="training" if case in labels else "testing",
        )
        for case, files in sorted(images.items())
    ]


def _testing(folder: Path, channels: int, problems: list[Problem]) -> list[ListedCase]:
    labels = labels_by_case(_files(folder / "labelsTs"))
    return [
        ListedCase(
            id=case,
            images=channel_stack(case, files, suffixes(channels), problems),
            label=labels.get(case),
            split="testing",
        )
        for case, files in sorted(by_channel(_files(folder / "imagesTs"), channels).items())
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in image_files(folder) if path.parent == folder] if folder.is_dir() else []


def suffixes(channels: int) -> list[str]:
    """`0000`, `0001`, ... for that many channels."""
    return [f"{channel:04d}" for channel in range(channels)]


def labels_by_case(paths: Sequence[Path]) -> dict[str, Path]:
    """Label files by case id; two of one case are refused by name."""
    return {case: files["0000"] for case, files in by_channel(paths, channels=0).items()}


def region_order(labelling: LabelNames) -> list[int]:
    """nnU-Net's `regions_class_order`: for each region the value that it alone adds to those behind it.

    Later regions overwrite earlier ones, so whole = 1+2+4, core = 1+4, enhancing = 4 gives 2, 1, 4.
    """
    regions = list(labelling.structures.values())
    order = []
    for i, values in enumerate(regions):
        behind = {value for later in regions[i + 1 :] for value in later}
        own = [value for value in values if value not in behind]
        order.append(own[0] if own else values[0])
    return order


def _class_order_note(descriptor: DatasetJson, labelling: LabelNames) -> list[str]:
    given = descriptor.regions_class_order
    if given is None or list(given) == region_order(labelling):
        return []
    return [
        f"regions_class_order is {list(given)}; a manifest keeps the regions and their order, from which "
        f"{region_order(labelling)} follows"
    ]


def _with_fold(case: ListedCase, folds: Mapping[str, int]) -> ListedCase:
    return replace(case, fold=folds.get(case.id)) if case.split == "training" else case
