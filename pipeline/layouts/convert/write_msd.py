"""Data sets written as Medical Segmentation Decathlon folders."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import safe_join, write_json
from pipeline.dataset.manifest import ManifestCase
from pipeline.layouts.convert.copy_cases import ConvertResult, CopyTask, channel_names, copy_cases, manifest_image_paths
from pipeline.layouts.convert.copy_images_and_labels import copy_label, copy_stack
from pipeline.layouts.convert.lost_fields import lost_fields
from pipeline.layouts.formats.dataset_json import NAME
from pipeline.layouts.label_names import LabelNames


def write_msd(task: CopyTask) -> ConvertResult:
    manifest, labelling = task.manifest, LabelNames(task.manifest.structures, task.manifest.ignore_label)
    if labelling.overlapping:
        raise DataError("MSD gives each label value one name, but regions of this data set overlap; use --to nnunet")

    def targets(case: ManifestCase) -> list[Path]:
        tail = "Tr" if case.split == "training" else "Ts"
        return [task.work / f"{kind}{tail}" / f"{case.id}.nii.gz" for kind in ("images", "labels")]

    def write(case: ManifestCase) -> None:
        image, label = targets(case)
        copy_stack(manifest_image_paths(case, task.root), image, task.resample)
        if case.label is not None:
            copy_label(safe_join(task.root, case.label), label, {})

    written, problems = copy_cases(task, "writing MSD", write, targets)
    items: dict[str, list[object]] = {"training": [], "test": []}
    for case in written:
        tail, key = ("Tr", "training") if case.split == "training" else ("Ts", "test")
        image = f"./images{tail}/{case.id}.nii.gz"
        item: dict[str, object] = {"image": image}
        item |= {"label": f"./labels{tail}/{case.id}.nii.gz"} if case.label is not None else {}
        item |= {"fold": case.fold} if case.fold is not None else {}
        item |= case.extra
        items[key].append(item if key == "training" or len(item) > 1 else image)
    labels = {str(value): name for name, values in labelling.structures.items() for value in values}
    if labelling.ignore_value is not None:
        labels[str(labelling.ignore_value)] = "ignore"
    descriptor = {
        "name": manifest.name,
        "description": manifest.description,
        "reference": manifest.source,
        "licence": manifest.licence,
        "tensorImageSize": "3D" if len(manifest.channels) == 1 else "4D",
        "modality": {str(i): name for i, name in enumerate(channel_names(manifest.channels))},
        "labels": {"0": "background", **dict(sorted(labels.items(), key=lambda item: int(item[0])))},
        "numTraining": len(items["training"]),
        "numTest": len(items["test"]),
        **items,
    }
    write_json(task.work / NAME, descriptor)
    return ConvertResult(task.out, len(written), tuple(lost_fields(manifest, extra_too=False)), tuple(problems))
