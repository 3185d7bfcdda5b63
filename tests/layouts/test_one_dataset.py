"""One data set in every layout: `init` must find the same cases, channels, labels and pairs of files."""

import hashlib
from pathlib import Path

import pytest

from pipeline.base.machine import Runtime
from pipeline.config import load_config
from pipeline.dataset.loaded_cases import read_cases
from pipeline.layouts.convert.convert_dataset import convert_dataset
from pipeline.layouts.init.init_dataset import init_dataset
from pipeline.stages import load
from pipeline.stages.stage_configs import LoadStageConfig
from tests.layouts.small_layouts import descriptor, image, label

CASES = {"sub-01": (1, 2), "sub-02": (2,), "sub-03": (1, 3)}
LABELS = {"core": 1, "rim": 2, "vessel": 3}


def source(folder: Path) -> dict[str, tuple[Path, Path]]:
    return {
        case: (image(folder / f"{case}.nii.gz"), label(folder / f"{case}_label.nii.gz", *values))
        for case, values in CASES.items()
    }


def put(scan: Path, place: Path) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(scan.read_bytes())
    return place.name


def as_folders(files, folder):
    for case, (scan, mask) in files.items():
        put(scan, folder / "images" / f"{case}.nii.gz")
        put(mask, folder / "labels" / f"{case}.nii.gz")


def as_case_folders(files, folder):
    for case, (scan, mask) in files.items():
        put(scan, folder / case / "mri.nii.gz")
        put(mask, folder / case / "mask.nii.gz")


def as_msd(files, folder):
    items = []
    for case, (scan, mask) in files.items():
        names = put(scan, folder / "imagesTr" / f"{case}.nii.gz"), put(mask, folder / "labelsTr" / f"{case}.nii.gz")
        items.append({"image": f"./imagesTr/{names[0]}", "label": f"./labelsTr/{names[1]}"})
    labels = {"0": "background"} | {str(value): name for name, value in LABELS.items()}
    descriptor(folder, {"modality": {"0": "MRI"}, "labels": labels, "training": items, "test": []})


def as_nnunet(files, folder):
    for case, (scan, mask) in files.items():
        put(scan, folder / "imagesTr" / f"{case}_0000.nii.gz")
        put(mask, folder / "labelsTr" / f"{case}.nii.gz")
    descriptor(folder, {"channel_names": {"0": "MRI"}, "labels": {"background": 0} | LABELS, "file_ending": ".nii.gz"})


def as_table(files, folder):
    rows = ["id\timage\tlabel"]
    for case, (scan, mask) in files.items():
        put(scan, folder / "a" / f"x{case}.nii.gz")
        put(mask, folder / "b" / f"y{case}.nii.gz")
        rows.append(f"{case}\ta/x{case}.nii.gz\tb/y{case}.nii.gz")
    (folder / "cases.tsv").write_text("\n".join(rows))


def as_bids(files, folder):
    for case, (scan, mask) in files.items():
        put(scan, folder / case / "anat" / f"{case}_T1w.nii.gz")
        put(mask, folder / "derivatives" / "manual" / case / "anat" / f"{case}_dseg.nii.gz")
    rows = ["index\tname", *(f"{value}\t{name}" for name, value in LABELS.items())]
    (folder / "derivatives" / "manual" / "dseg.tsv").write_text("\n".join(rows))


WRITERS = [as_folders, as_case_folders, as_msd, as_nnunet, as_table, as_bids]


def contents(result):
    """Case to the hashes of its image and label map, as the manifest records them."""
    return {case.id: (case.sha256[case.images[0]], case.sha256[case.label]) for case in result.dataset.cases}


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_means_the_same(tmp_path, write):
    files = source(tmp_path / "source")
    write(files, tmp_path / "data")
    declared = None if write in {as_msd, as_nnunet, as_bids} else ",".join(f"{n}={v}" for n, v in LABELS.items())
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml", labels=declared)
    assert contents(result) == {case: (hashed(scan), hashed(mask)) for case, (scan, mask) in files.items()}
    assert dict(result.dataset.labels) == LABELS
    assert not result.problems
    assert {case.split for case in result.dataset.cases} == {"training"}
    assert {case.subject for case in result.dataset.cases} == set(CASES)


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_written_runs_as_it_stands(tmp_path, write):
    # load reads every file and holds each against the manifest's digests
    write(source(tmp_path / "source"), tmp_path / "data")
    config = load_config(init_dataset(tmp_path / "data", tmp_path / "configs" / "mine.yaml").config)
    (tmp_path / "load").mkdir()
    load.run(LoadStageConfig(data=config.data, load=config.load), {}, tmp_path / "load", Runtime(executor="serial"))
    assert [case.id for case in read_cases(tmp_path / "load").training()] == list(CASES)


@pytest.mark.parametrize("to", ["nnunet", "msd"])
@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_can_be_written_as_both(tmp_path, write, to):
    files = source(tmp_path / "source")
    write(files, tmp_path / "data")
    declared = ",".join(f"{name}={value}" for name, value in LABELS.items())
    made = init_dataset(tmp_path / "data", tmp_path / "mine.yaml", labels=declared)
    again = init_dataset(convert_dataset(made.manifest, to, tmp_path / "back").folder, tmp_path / "again.yaml")
    assert contents(again) == contents(made)
    assert again.dataset.labels == made.dataset.labels
