"""`segpipe convert`: there and back again."""

import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.dataset.manifest import write_manifest
from pipeline.layouts.convert.convert_dataset import convert_dataset
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.formats import test_msd, test_nnunet
from tests.layouts.small_layouts import AFFINE, SHAPE, descriptor, image, label


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nrrd(path, array_XYZC):
    """A NRRD file of vectors on the grid of `making.AFFINE`."""
    lines = [
        "NRRD0004", "type: float", "dimension: 4", "space: left-posterior-superior",
        f"sizes: {array_XYZC.shape[3]} {' '.join(map(str, array_XYZC.shape[:3]))}",
        "space directions: none (1,0,0) (0,-2,0) (0,0,3)", "kinds: vector domain domain domain", "endian: little",
        "encoding: raw", "space origin: (-10,5,0)",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.moveaxis(array_XYZC, -1, 0).astype("<f4").tobytes("F")
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + voxels)


def without_json(contents):
    return {name: data for name, data in contents.items() if not name.endswith(".json") and "._" not in name}


def test_nnunet_there_and_back_is_equal(tmp_path):
    raw = test_nnunet.raw(tmp_path / "Dataset001_Prostate")
    image(raw / "imagesTs/q_1_0000.nii.gz")
    image(raw / "imagesTs/q_1_0001.nii.gz")
    splits = [{"train": ["p_1", "p_3"], "val": ["p_2"]}, {"train": ["p_2"], "val": ["p_1", "p_3"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    made = init_dataset(raw, tmp_path / "configs" / "prostate.yaml")
    back = convert_dataset(made.config, "nnunet", tmp_path / "Dataset002_Prostate").folder
    assert without_json(files(back)) == without_json(files(raw))
    assert json.loads((back / "splits_final.json").read_text(encoding="utf-8")) == splits
    descriptor_back = json.loads((back / "dataset.json").read_text(encoding="utf-8"))
    assert {key: descriptor_back[key] for key in test_nnunet.PROSTATE} == test_nnunet.PROSTATE
    again = init_dataset(back, tmp_path / "configs" / "again.yaml")
    assert again.dataset.cases == made.dataset.cases
    assert again.dataset.labels == made.dataset.labels
    assert again.dataset.channels == made.dataset.channels


def test_regions_and_ignore_there_and_back(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    raw = test_nnunet.raw(tmp_path / "Dataset001_X", labels=labels, regions_class_order=[1, 2, 3])
    made = init_dataset(raw, tmp_path / "x.yaml")
    back = json.loads(
        (convert_dataset(made.config, "nnunet", tmp_path / "back").folder / "dataset.json").read_text(encoding="utf-8")
    )
    assert back["labels"] == labels
    assert back["regions_class_order"] == [1, 2, 3]


def test_msd_there_and_back_is_equal(tmp_path):
    task = test_msd.task(tmp_path / "Task04")
    made = init_dataset(task, tmp_path / "hippocampus.yaml")
    back = convert_dataset(made.config, "msd", tmp_path / "Task94").folder
    assert without_json(files(back)) == without_json(files(task))
    written = json.loads((back / "dataset.json").read_text(encoding="utf-8"))
    assert written == {key: value for key, value in test_msd.TASK.items() if key != "relase"}


@pytest.mark.parametrize("to", ["nnunet", "msd"])
def test_images_without_labels_there_and_back(tmp_path, to):
    """Nothing can be learned from them, but they can be predicted; a layout's `labels` then holds background alone."""
    for number in range(2):
        image(tmp_path / f"data/c{number}.nii.gz")
    made = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    back = convert_dataset(made.config, to, tmp_path / "Dataset003_Back").folder
    again = init_dataset(back, tmp_path / "again.yaml").dataset
    assert [(case.id, case.label, case.split) for case in again.cases] == [
        ("c0", None, "testing"),
        ("c1", None, "testing"),
    ]
    assert again.labels == {}


def test_4d_becomes_channel_files_and_4d_again(tmp_path):
    place = tmp_path / "Task"
    original = image(place / "imagesTr/c.nii.gz", channels=2)
    label(place / "labelsTr/c.nii.gz", 1)
    items = [{"image": "imagesTr/c.nii.gz", "label": "labelsTr/c.nii.gz"}]
    descriptor(place, {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"1": "edema"}, "training": items})
    made = init_dataset(place, tmp_path / "task.yaml")
    raw = convert_dataset(made.config, "nnunet", tmp_path / "raw").folder
    assert sorted(path.name for path in (raw / "imagesTr").iterdir()) == ["c_0000.nii.gz", "c_0001.nii.gz"]
    again = init_dataset(raw, tmp_path / "again.yaml")
    stacked = nib.load(convert_dataset(again.config, "msd", tmp_path / "back").folder / "imagesTr/c.nii.gz")
    np.testing.assert_array_equal(stacked.get_fdata(), nib.load(original).get_fdata())
    np.testing.assert_array_equal(stacked.affine, AFFINE)
    assert stacked.shape == (*SHAPE, 2)


def test_label_values_with_gaps_become_consecutive_aloud(tmp_path):
    place = tmp_path / "data"
    image(place / "images/c.nii.gz")
    label(place / "labels/c.nii.gz", 3, 200)
    made = init_dataset(place, tmp_path / "mine.yaml", labels="liver=3,tumour=200")
    result = convert_dataset(made.config, "nnunet", tmp_path / "raw")
    assert "nnU-Net wants label values 1, 2, ...: written as 3→1, 200→2" in result.notes
    written = np.asarray(nib.load(result.folder / "labelsTr/c.nii.gz").dataobj)
    before = np.asarray(nib.load(place / "labels/c.nii.gz").dataobj)
    np.testing.assert_array_equal(written, np.select([before == 3, before == 200], [1, 2], 0))


def test_ct_keeps_its_normalisation_by_name(tmp_path):
    place = tmp_path / "data"
    image(place / "images/c.nii.gz", lowest=-1024)
    label(place / "labels/c.nii.gz", 1)
    made = init_dataset(place, tmp_path / "mine.yaml")
    raw = convert_dataset(made.config, "nnunet", tmp_path / "raw").folder
    assert json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["channel_names"] == {"0": "CT"}


def test_every_ct_is_called_so_for_nnunet_and_said(tmp_path):
    """nnU-Net takes each channel's normalisation from its name, and knows CT by these letters alone."""
    raw = test_nnunet.raw(tmp_path / "Dataset001_X", channel_names={"0": "CT_arterial", "1": "CTA"})
    made = init_dataset(raw, tmp_path / "x.yaml")
    result = convert_dataset(made.config, "nnunet", tmp_path / "back")
    descriptor_back = json.loads((result.folder / "dataset.json").read_text(encoding="utf-8"))
    assert descriptor_back["channel_names"] == {"0": "CT", "1": "CT"}
    assert (
        "nnU-Net normalises as CT only what is called CT: that is what it is told of CT_arterial, CTA" in result.notes
    )
    again = init_dataset(result.folder, tmp_path / "again.yaml")
    assert [channel.modality for channel in again.dataset.channels] == ["CT", "CT"]


def pairs_of_channels(place, cases=3):
    """Cases with two channels, the second of c1 on a coarser grid than the first."""
    for i in range(cases):
        image(place / f"images/c{i}_0000.nii.gz")
        image(place / f"images/c{i}_0001.nii.gz")
        label(place / f"labels/c{i}.nii.gz", 1)
    coarse = nib.Nifti1Image(np.arange(12, dtype=np.int16).reshape(3, 2, 2), AFFINE @ np.diag([2, 2, 2, 1]))
    nib.save(coarse, place / "images/c1_0001.nii.gz")
    return place


@pytest.mark.parametrize("to", ["nnunet", "msd"])
def test_faulty_cases_are_left_out_by_name_and_the_others_written(tmp_path, to):
    place = tmp_path / "data"
    for i in range(4):
        image(place / f"images/c{i}.nii.gz")
        label(place / f"labels/c{i}.nii.gz", 1)
    made = init_dataset(place, tmp_path / "mine.yaml")
    (place / "images/c1.nii.gz").unlink()
    (place / "labels/c2.nii.gz").write_bytes(b"")
    result = convert_dataset(made.config, to, tmp_path / "out")
    assert (result.cases, [problem.where for problem in result.problems]) == (2, ["c1", "c2"])
    assert "there is no such file" in result.message and "the file is empty" in result.message
    names = {path.name.split(".")[0].removesuffix("_0000") for path in (tmp_path / "out").glob("*Tr/*")}
    assert names == {"c0", "c3"}
    assert json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2


def test_a_conversion_that_fails_leaves_nothing_and_can_be_repeated(tmp_path):
    place = tmp_path / "data"
    image(place / "images/c.nii.gz")
    label(place / "labels/c.nii.gz", 1)
    made = init_dataset(place, tmp_path / "mine.yaml")
    (place / "images/c.nii.gz").rename(tmp_path / "away.nii.gz")
    with pytest.raises(
        DataError, match=r"data, of which no case can be written, has 1 problem\n  c  .*there is no such file"
    ):
        convert_dataset(made.config, "nnunet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_manifest(tmp_path / "empty.json", made.dataset.model_copy(update={"cases": ()}))
    with pytest.raises(DataError, match="the manifest has no case to write"):
        convert_dataset(tmp_path / "empty.json", "msd", tmp_path / "out")
    (tmp_path / "away.nii.gz").rename(place / "images/c.nii.gz")
    image(tmp_path / "out/.partial/imagesTr/left_by_a_killed_one_0000.nii.gz")
    convert_dataset(made.config, "nnunet", tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["dataset.json", "imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz"]


def test_channels_on_other_grids_are_resampled_where_the_configuration_says_so(tmp_path):
    made = init_dataset(pairs_of_channels(tmp_path / "data"), tmp_path / "mine.yaml")
    by_manifest = convert_dataset(made.manifest, "nnunet", tmp_path / "as_they_are")
    assert any(note.startswith("channels of c1 lie on different grids") for note in by_manifest.notes)
    assert nib.load(tmp_path / "as_they_are/imagesTr/c1_0001.nii.gz").shape == (3, 2, 2)
    refused = convert_dataset(made.manifest, "msd", tmp_path / "stacked")  # one file cannot hold two grids
    assert [problem.where for problem in refused.problems] == ["c1"]
    text = made.config.read_text(encoding="utf-8").replace("load:\n", "load:\n  resample_channels: true\n")
    made.config.write_text(text, encoding="utf-8")
    for to, name, shape in (("nnunet", "c1_0001.nii.gz", SHAPE), ("msd", "c1.nii.gz", (*SHAPE, 2))):
        result = convert_dataset(made.config, to, tmp_path / to)
        written = nib.load(tmp_path / to / "imagesTr" / name)
        assert (written.shape, result.problems) == (shape, ())
        np.testing.assert_array_equal(written.affine, AFFINE)


def test_what_a_layout_cannot_hold_is_refused(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    made = init_dataset(test_nnunet.raw(tmp_path / "Dataset001_X", labels=labels), tmp_path / "x.yaml")
    with pytest.raises(DataError, match="regions of this data set overlap; use --to nnunet"):
        convert_dataset(made.config, "msd", tmp_path / "back")


def test_nothing_is_overwritten(tmp_path):
    made = init_dataset(test_nnunet.raw(tmp_path / "Dataset001_X"), tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        convert_dataset(made.config, "nnunet", tmp_path / "Dataset001_X")
    with pytest.raises(ConfigError, match="did you mean 'nnunet'"):
        convert_dataset(made.config, "nnunett", tmp_path / "new")


def test_channels_in_one_file_of_another_kind_become_files_of_nifti(tmp_path):
    place = tmp_path / "data"
    for name in ("a", "b"):
        source = image(tmp_path / f"{name}_source.nii.gz", channels=2)
        array = np.asarray(nib.load(source).dataobj).astype(np.float32)
        nrrd(place / f"images/{name}.nrrd", array)
        label(place / f"labels/{name}.nii.gz", 1)
    made = init_dataset(place, tmp_path / "mine.yaml")
    out = convert_dataset(made.config, "nnunet", tmp_path / "raw").folder
    assert sorted(path.name for path in (out / "imagesTr").iterdir()) == [
        "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz",
    ]  # fmt: skip
