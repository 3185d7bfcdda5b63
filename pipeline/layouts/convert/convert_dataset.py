"""`segpipe convert`: a manifest's data set written as nnU-Net raw or as a Medical Segmentation Decathlon folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError, Problem, did_you_mean, problem_list
from pipeline.base.files import safe_join, write_json
from pipeline.base.terminal import progress
from pipeline.config.yaml_source import read_yaml
from pipeline.dataset.cases_json import Channel
from pipeline.dataset.manifest import Manifest, ManifestCase, read_manifest
from pipeline.layouts.convert.copy_files import copy_channels, copy_label, copy_stack
from pipeline.layouts.dataset_listing import modality_of
from pipeline.layouts.formats.dataset_json import NAME, distinct
from pipeline.layouts.formats.nnunet import SPLITS, region_order
from pipeline.layouts.label_names import LabelNames

_NNUNET_ENDINGS = (".nii.gz", ".nrrd", ".mha")
_PARTIAL = ".partial"
"""Filled first, in the folder itself: an empty one may be a mounted one, which no other can be renamed to."""


@dataclass(frozen=True)
class ConvertResult:
    """What was written: the folder and its cases. notes: what the layout could not hold or had changed; problems: who
    is left out."""

    folder: Path
    cases: int
    notes: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def message(self) -> str:
        """What was written, for the terminal."""
        notes = [f"note: {note}" for note in self.notes]
        faults = [problem_list("the data", self.problems)] if self.problems else []
        return "\n".join([*notes, *faults, f"wrote {self.cases} cases to {self.folder}"])


@dataclass(frozen=True)
class _CopyTask:
    """What is written where: `out` is the folder in the end, `work` the one in it that is filled first."""

    manifest: Manifest
    root: Path
    resample: bool
    out: Path

    @property
    def work(self) -> Path:
        return self.out / _PARTIAL


def convert_dataset(source: Path, to: str, out: Path) -> ConvertResult:
    """Writes the data set of a manifest (.json) or of a configuration (.yaml) into the new folder `out`.

    to: `nnunet` or `msd`. Files are copied byte for byte wherever the layout allows it; channels on other grids are
    resampled where the configuration's `load.resample_channels` says so. A case with a file that cannot be used is left
    out by name. Raises a ConfigError for an unknown layout or a folder that is not empty, a DataError where the layout
    cannot hold the data set or no case can be used; then nothing is left in `out`.
    """
    writers = {"nnunet": _write_nnunet, "msd": _write_msd}
    if to not in writers:
        raise ConfigError(f"--to {to!r} is unknown; {did_you_mean(to, list(writers))}")
    is_there = out.exists()
    if is_there and (not out.is_dir() or any(path.name != _PARTIAL for path in out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; give a new folder, so that nothing is mixed or overwritten")
    task = _CopyTask(*_data_set(source), out)
    shutil.rmtree(task.work, ignore_errors=True)  # of a process that was killed
    try:
        result = writers[to](task)
        for path in sorted(task.work.iterdir(), key=lambda path: path.name == NAME):  # the descriptor last
            path.rename(out / path.name)
    finally:
        shutil.rmtree(task.work, ignore_errors=True)
        with suppress(OSError):  # where something was written
            if not is_there:
                out.rmdir()
    return result


def _data_set(source: Path) -> tuple[Manifest, Path, bool]:
    """The manifest, the folder its paths are relative to, and whether channels are resampled onto one grid."""
    if source.suffix.lower() == ".json":
        manifest = read_manifest(source)
        return manifest, source.absolute().parent / (manifest.root or ""), False
    values = read_yaml(source).values
    data, load = values.get("data"), values.get("load")
    if not isinstance(data, dict) or not isinstance(data.get("manifest"), str):
        raise ConfigError(f"{source}: has no data.manifest; name the manifest itself")
    near = source.absolute().parent
    manifest_path = near / data["manifest"]
    manifest = read_manifest(manifest_path)
    root = near / str(data["root"]) if data.get("root") else manifest_path.parent / (manifest.root or "")
    return manifest, root, isinstance(load, dict) and load.get("resample_channels") is True


def _write_nnunet(task: _CopyTask) -> ConvertResult:
    manifest, labelling = task.manifest, LabelNames(task.manifest.structures, task.manifest.ignore_label)
    ending, values = _common_ending(manifest), _consecutive(labelling)
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
        lie_apart = copy_channels(_images(case, task.root), images, task.resample)
        if case.label is not None:
            copy_label(safe_join(task.root, case.label), label, values)
        if lie_apart:
            apart.append(case.id)

    written, problems = _each_case(task, "writing nnU-Net raw", write, targets)
    if apart:
        notes.append(
            f"channels of {', '.join(apart)} lie on different grids, which nnU-Net refuses; to resample them convert a "
            "configuration with load.resample_channels: true"
        )
    notes += _write_descriptor(task, written, ending, names, values)
    return ConvertResult(task.out, len(written), (*notes, *_lost(manifest, extra_too=True)), tuple(problems))


def _each_case(
    task: _CopyTask,
    title: str,
    write: Callable[[ManifestCase], None],
    targets: Callable[[ManifestCase], Sequence[Path]],
) -> tuple[list[ManifestCase], list[Problem]]:
    """The cases that were written, and why the others were not: nothing of these is left. DataError where none was."""
    written, problems = [], list[Problem]()
    with progress(title, len(task.manifest.cases)) as bar:
        for case in task.manifest.cases:
            try:
                if case.split == "training" and case.label is None:
                    raise DataError(
                        "has no label, though it is for training; give its label, or set its split to testing"
                    )
                write(case)
                written.append(case)
            except (DataError, MemoryError) as error:
                for target in targets(case):
                    target.unlink(missing_ok=True)
                problems.append(Problem(case.id, f"{str(error) or 'there is not enough memory for it'}; left out"))
            bar.advance()
    if not task.manifest.cases:
        raise DataError(f"{task.manifest.name}: the manifest has no case to write")
    if not written:
        raise DataError(problem_list(f"{task.manifest.name}, of which no case can be written,", problems))
    return written, problems


def _write_descriptor(
    task: _CopyTask, cases: Sequence[ManifestCase], ending: str, names: Sequence[str], values: Mapping[int, int]
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


def _write_msd(task: _CopyTask) -> ConvertResult:
    manifest, labelling = task.manifest, LabelNames(task.manifest.structures, task.manifest.ignore_label)
    if labelling.overlapping:
        raise DataError("MSD gives each label value one name, but regions of this data set overlap; use --to nnunet")

    def targets(case: ManifestCase) -> list[Path]:
        tail = "Tr" if case.split == "training" else "Ts"
        return [task.work / f"{kind}{tail}" / f"{case.id}.nii.gz" for kind in ("images", "labels")]

    def write(case: ManifestCase) -> None:
        image, label = targets(case)
        copy_stack(_images(case, task.root), image, task.resample)
        if case.label is not None:
            copy_label(safe_join(task.root, case.label), label, {})

    written, problems = _each_case(task, "writing MSD", write, targets)
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
        "modality": {str(i): name for i, name in enumerate(_channel_names(manifest.channels))},
        "labels": {"0": "background", **dict(sorted(labels.items(), key=lambda item: int(item[0])))},
        "numTraining": len(items["training"]),
        "numTest": len(items["test"]),
        **items,
    }
    write_json(task.work / NAME, descriptor)
    return ConvertResult(task.out, len(written), tuple(_lost(manifest, extra_too=False)), tuple(problems))


def _images(case: ManifestCase, root: Path) -> list[Path]:
    return [safe_join(root, image) for image in case.images]


def _channel_names(channels: Sequence[Channel]) -> list[str]:
    """Names from which a reader gets the modality back."""
    return distinct([c.name if modality_of(c.name) == c.modality else c.modality for c in channels])


def _nnunet_channels(channels: Sequence[Channel]) -> tuple[list[str], list[str]]:
    """nnU-Net's channel names, which may be equal, and notes: it normalises as CT what is called CT, nothing else."""
    pairs = list(zip(channels, _channel_names(channels), strict=True))
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


def _consecutive(labelling: LabelNames) -> dict[int, int]:
    """Old label values to 1, 2, ... in order of value; the ignore value becomes the highest."""
    ignored = {labelling.ignore_value} - {None}
    values = [*sorted(labelling.values - ignored), *sorted(v for v in ignored if v is not None)]
    return {old: new for new, old in enumerate(values, start=1)}


def _lost(manifest: Manifest, extra_too: bool) -> list[str]:
    """What the layout has no place for."""
    lost = []
    if any(case.subject not in (None, case.id) for case in manifest.cases):
        lost.append("the layout has no subjects; keep the folds given here, so that no subject is on both sides")
    if extra_too and (names := sorted({key for case in manifest.cases for key in case.extra})):
        lost.append(f"the layout has no place for the columns {', '.join(names)}")
    return lost
