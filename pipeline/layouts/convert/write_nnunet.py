"""Data sets written as nnU-Net raw folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.files import safe_join, write_json
from pipeline.dataset.loaded_cases import Channel
from pipeline.dataset.manifest import Manifest, ManifestCase
from pipeline.layouts.convert.copy_cases import ConvertResult, CopyTask, channel_names, copy_cases, manifest_image_paths
from pipeline.layouts.convert.copy_images_and_labels import copy_channels, copy_label
from pipeline.layouts.convert.lost_fields import lost_fields
from pipeline.layouts.formats.dataset_json import NAME
from pipeline.layouts.formats.nnunet import region_order
from pipeline.layouts.formats.nnunet_splits import SPLITS
from pipeline.layouts.label_names import LabelNames

_NNUNET_ENDINGS = (".nii.gz", ".nrrd", ".mha")


def write_nnunet(task: CopyTask) -> ConvertResult:
    manifest, labelling = task.manifest, LabelNames(task.manifest.structures, task.manifest.ignore_label)
    ending, values = _common_ending(manifest), consecutive_values(labelling)
    names, notes = _nnunet_channels(manifest.channels)
    if any(old != new for old, new in values.items()):
        changed = ", ".join(f"{old}→{new}" for old, new in values.items() if old != new)
        notes.append(f"nnU-Net wants label values 1, 2, ...: written as {changed}")
    apart: list[str] = []

    def targets(case: ManifestCase) -> list[Path]:
        tail = "Tr" if case.split == "training" else "Ts"
        images = [task.work / f"images{tail}" / f"{case.id}_{i:04d}{ending}" for i in range(len(names))]
        return [*images, task.work / f"labels{tail}" / f"{case.id}{ending}"]

    def write(case: ManifestCase) -> None:
        *images, label = targets(case)
        lie_apart = copy_channels(manifest_image_paths(case, task.root), images, task.resample)
        if case.label is not None:
            copy_label(safe_join(task.root, case.label), label, values)
        if lie_apart:
            apart.append(case.id)

    written, problems = copy_cases(task, "writing nnU-Net raw", write, targets)
    if apart:
        notes.append(
            f"channels of {', '.join(apart)} lie on different grids, which nnU-Net refuses; to resample them convert a "
            "configuration with load.resample_channels: true"
        )
    notes += _write_descriptor(task, written, ending, names, values)
    return ConvertResult(task.out, len(written), (*notes, *lost_fields(manifest, extra_too=True)), tuple(problems))


def _write_descriptor(
    task: CopyTask, cases: Sequence[ManifestCase], ending: str, names: Sequence[str], values: Mapping[int, int]
) -> list[str]:
    """nnU-Net's dataset.json and, where all training cases have a fold, its splits; what there is to say of these."""
    manifest, labelling = task.manifest, LabelNames(task.manifest.structures, task.manifest.ignore_label)
    training = [case for case in cases if case.split == "training"]
    labels: dict[str, int | list[int]] = {"background": 0}
    for name, old in labelling.structures.items():
        new = [values[value] for value in old]
        labels[name] = new[0] if len(new) == 1 else new
    if labelling.ignore_value is not None:
        labels["ignore"] = values[labelling.ignore_value]
    descriptor = {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ending,
        "name": manifest.name,
        "description": manifest.description,
        "licence": manifest.licence,
        "reference": manifest.source,
    }
    if any(len(old) > 1 for old in labelling.structures.values()):
        new_regions = {name: tuple(values[v] for v in old) for name, old in labelling.structures.items()}
        descriptor["regions_class_order"] = region_order(LabelNames(new_regions))
    write_json(task.work / NAME, descriptor)
    if splits := splits_of(training):
        write_json(task.work / SPLITS, splits)
        return [f"{SPLITS} belongs into nnUNet_preprocessed/{task.out.name}/ before nnU-Net trains"]
    if any(case.fold is not None for case in training):
        return [f"no {SPLITS} is written: some training cases are in no fold of the manifest"]
    return []


def _nnunet_channels(channels: Sequence[Channel]) -> tuple[list[str], list[str]]:
    """nnU-Net's channel names, which may be equal, and notes: it normalises as CT what is called CT, nothing else."""
    pairs = list(zip(channels, channel_names(channels), strict=True))
    names = ["CT" if channel.modality.upper() == "CT" else name for channel, name in pairs]
    renamed = [c.name for c, name in zip(channels, names, strict=True) if name == "CT" and c.name.upper() != "CT"]
    if not renamed:
        return names, []
    return names, [f"nnU-Net normalises as CT only what is called CT: that is what it is told of {', '.join(renamed)}"]


def _common_ending(manifest: Manifest) -> str:
    """The files' own ending where all share one that nnU-Net reads and none is to be taken apart, else .nii.gz."""
    if any(len(case.images) != len(manifest.channels) for case in manifest.cases):
        return ".nii.gz"
    files = [file for case in manifest.cases for file in (*case.images, *([case.label] if case.label else []))]
    return next((e for e in _NNUNET_ENDINGS if all(file.lower().endswith(e) for file in files)), ".nii.gz")


def consecutive_values(labelling: LabelNames) -> dict[int, int]:
    """Old label values to 1, 2, ... in order of value; the ignore value becomes the highest."""
    ignored = {labelling.ignore_value} - {None}
    values = [*sorted(labelling.values - ignored), *sorted(v for v in ignored if v is not None)]
    return {old: new for new, old in enumerate(values, start=1)}


def splits_of(training: Sequence[ManifestCase]) -> list[dict[str, list[str]]]:
    """nnU-Net's `splits_final.json` from the folds of a manifest; empty where a case has none."""
    folds = [case.fold for case in training]
    if not folds or any(fold is None for fold in folds):
        return []
    return [
        {
            "train": sorted(case.id for case in training if case.fold != fold),
            "val": sorted(case.id for case in training if case.fold == fold),
        }
        for fold in sorted({fold for fold in folds if fold is not None})
    ]
