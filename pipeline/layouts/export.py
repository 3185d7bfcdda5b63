"""`segpipe convert`: a manifest's data set written as nnU-Net raw or as a Medical Segmentation Decathlon folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError, did_you_mean
from pipeline.base.files import inside, write_json
from pipeline.base.terminal import progress
from pipeline.base.yaml_source import read_yaml
from pipeline.data.cases import Channel
from pipeline.data.manifest import Manifest, ManifestCase, read_manifest
from pipeline.layouts.copying import copy_channels, copy_label, copy_stack
from pipeline.layouts.descriptor import NAME, distinct
from pipeline.layouts.found import modality_of
from pipeline.layouts.labelling import Labelling
from pipeline.layouts.nnunet import SPLITS, region_order

_NNUNET_ENDINGS = (".nii.gz", ".nrrd", ".mha")


@dataclass(frozen=True)
class ConvertResult:
    """The folder that was written, its number of cases, and what the layout could not hold or had changed."""

    folder: Path
    cases: int
    notes: tuple[str, ...]

    @property
    def message(self) -> str:
        """What was written, for the terminal."""
        return "\n".join([*(f"note: {note}" for note in self.notes), f"wrote {self.cases} cases to {self.folder}"])


def convert(source: Path, to: str, out: Path) -> ConvertResult:
    """Writes the data set of a manifest (.json) or of a configuration (.yaml) into the new folder `out`.

    to: `nnunet` or `msd`. Files are copied byte for byte wherever the layout allows it. Raises a ConfigError for an
    unknown layout or a folder that is not empty, a DataError where the layout cannot hold the data set.
    """
    writers = {"nnunet": _write_nnunet, "msd": _write_msd}
    if to not in writers:
        raise ConfigError(f"--to {to!r} is unknown; {did_you_mean(to, list(writers))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; give a new folder, so that nothing is mixed or overwritten")
    manifest, root = _data_set(source)
    return writers[to](manifest, root, out)


def _data_set(source: Path) -> tuple[Manifest, Path]:
    """The manifest and the folder its paths are relative to."""
    if source.suffix.lower() == ".json":
        manifest = read_manifest(source)
        return manifest, source.absolute().parent / (manifest.root or "")
    data = read_yaml(source).values.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("manifest"), str):
        raise ConfigError(f"{source}: has no data.manifest; name the manifest itself")
    near = source.absolute().parent
    manifest_path = near / data["manifest"]
    manifest = read_manifest(manifest_path)
    if data.get("root"):
        return manifest, near / str(data["root"])
    return manifest, manifest_path.parent / (manifest.root or "")


def _write_nnunet(manifest: Manifest, root: Path, out: Path) -> ConvertResult:
    labelling = Labelling(manifest.structures, manifest.ignore_label)
    ending = _common_ending(manifest)
    values = _consecutive(labelling)
    notes = []
    if any(old != new for old, new in values.items()):
        changed = ", ".join(f"{old}→{new}" for old, new in values.items() if old != new)
        notes.append(f"nnU-Net wants label values 1, 2, ...: written as {changed}")
    with progress("writing nnU-Net raw", len(manifest.cases)) as bar:
        for case in manifest.cases:
            tail = "Tr" if case.split == "training" else "Ts"
            copy_channels(_images(case, root), out / f"images{tail}", case.id, ending, len(manifest.channels))
            if case.label is not None:
                copy_label(inside(root, case.label), out / f"labels{tail}" / f"{case.id}{ending}", values)
            bar.advance()
    training = [case for case in manifest.cases if case.split == "training"]
    labels: dict[str, int | list[int]] = {"background": 0}
    for name, old in labelling.structures.items():
        new = [values[value] for value in old]
        labels[name] = new[0] if len(new) == 1 else new
    if labelling.ignore_value is not None:
        labels["ignore"] = values[labelling.ignore_value]
    descriptor = {
        "channel_names": {str(i): name for i, name in enumerate(_channel_names(manifest.channels))},
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
        descriptor["regions_class_order"] = region_order(Labelling(new_regions))
    write_json(out / NAME, descriptor)
    if splits := splits_of(training):
        write_json(out / SPLITS, splits)
        notes.append(f"{SPLITS} belongs into nnUNet_preprocessed/{out.name}/ before nnU-Net trains")
    elif any(case.fold is not None for case in training):
        notes.append(f"no {SPLITS} is written: some training cases are in no fold of the manifest")
    return ConvertResult(out, len(manifest.cases), (*notes, *_lost(manifest, extra_too=True)))


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


def _write_msd(manifest: Manifest, root: Path, out: Path) -> ConvertResult:
    labelling = Labelling(manifest.structures, manifest.ignore_label)
    if labelling.overlapping:
        raise DataError("MSD gives each label value one name, but regions of this data set overlap; use --to nnunet")
    items: dict[str, list[object]] = {"training": [], "test": []}
    with progress("writing MSD", len(manifest.cases)) as bar:
        for case in manifest.cases:
            tail, key = ("Tr", "training") if case.split == "training" else ("Ts", "test")
            image = f"images{tail}/{case.id}.nii.gz"
            copy_stack(_images(case, root), out / image)
            item: dict[str, object] = {"image": f"./{image}"}
            if case.label is not None:
                item["label"] = f"./labels{tail}/{case.id}.nii.gz"
                copy_label(inside(root, case.label), out / f"labels{tail}" / f"{case.id}.nii.gz", {})
            item |= {"fold": case.fold} if case.fold is not None else {}
            item |= case.extra
            items[key].append(item if key == "training" or len(item) > 1 else f"./{image}")
            bar.advance()
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
    write_json(out / NAME, descriptor)
    return ConvertResult(out, len(manifest.cases), tuple(_lost(manifest, extra_too=False)))


def _images(case: ManifestCase, root: Path) -> list[Path]:
    return [inside(root, image) for image in case.images]


def _channel_names(channels: Sequence[Channel]) -> list[str]:
    """Names from which a reader gets the modality back: nnU-Net normalises as CT what is called CT, nothing else."""
    return distinct([c.name if modality_of(c.name) == c.modality else c.modality for c in channels])


def _common_ending(manifest: Manifest) -> str:
    """The files' own ending where all share one that nnU-Net reads and none is to be taken apart, else .nii.gz."""
    if any(len(case.images) != len(manifest.channels) for case in manifest.cases):
        return ".nii.gz"
    files = [file for case in manifest.cases for file in (*case.images, *([case.label] if case.label else []))]
    return next((e for e in _NNUNET_ENDINGS if all(file.lower().endswith(e) for file in files)), ".nii.gz")


def _consecutive(labelling: Labelling) -> dict[int, int]:
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
