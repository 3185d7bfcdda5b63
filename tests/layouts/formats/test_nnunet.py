"""nnU-Net raw folders."""

import json

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.formats.nnunet import read
from tests.layouts.small_layouts import descriptor, image, label

PROSTATE = {
    "channel_names": {"0": "T2", "1": "CT"},
    "labels": {"background": 0, "PZ": 1, "TZ": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
IDS = ("p_1", "p_2", "p_3")


def raw(folder, **changes):
    for case in IDS:
        image(folder / f"imagesTr/{case}_0000.nii.gz")
        image(folder / f"imagesTr/{case}_0001.nii.gz")
        label(folder / f"labelsTr/{case}.nii.gz", 1, 2)
    return descriptor(folder, {**PROSTATE, **changes})


def test_channels_by_suffix_and_ct_by_name(tmp_path):
    found = read(raw(tmp_path))
    assert [case.id for case in found.cases] == list(IDS)
    assert [path.name for path in found.cases[0].images] == ["p_1_0000.nii.gz", "p_1_0001.nii.gz"]
    assert [(channel.name, channel.modality) for channel in found.channels] == [("T2", "MR"), ("CT", "CT")]
    assert found.labelling.structures == {"PZ": (1,), "TZ": (2,)}


def test_a_missing_channel_is_named_and_keeps_its_case(tmp_path):
    folder = raw(tmp_path)
    (folder / "imagesTr/p_2_0001.nii.gz").unlink()
    found = read(folder)
    assert [(p.where, p.what) for p in found.problems] == [("p_2", "channel 0001 is missing; expected p_2_0001.nii.gz")]
    assert found.cases[1].images[1] == folder / "imagesTr/p_2_0001.nii.gz"


def test_background_alone_is_refused_where_there_are_label_maps(tmp_path):
    with pytest.raises(DataError, match="declares no structure beside the background"):
        read(raw(tmp_path, labels={"background": 0}))


def test_test_images_with_and_without_labels(tmp_path):
    folder = raw(tmp_path)
    for case in ("q_1", "q_2"):
        for channel in (0, 1):
            image(folder / f"imagesTs/{case}_{channel:04d}.nii.gz")
    label(folder / "labelsTs/q_1.nii.gz")
    testing = [case for case in read(folder).cases if case.split == "testing"]
    assert [(case.id, case.label is not None) for case in testing] == [("q_1", True), ("q_2", False)]


def test_regions_and_ignore(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    found = read(raw(tmp_path, labels=labels, regions_class_order=[1, 2, 3]))
    assert found.labelling.overlapping
    assert found.labelling.ignore_value == 4
    assert not any("regions_class_order" in note for note in found.notes)
    other = read(raw(tmp_path, labels=labels, regions_class_order=[3, 2, 1]))
    assert any("regions_class_order is [3, 2, 1]" in note for note in other.notes)


def test_paths_under_dataset_may_lie_anywhere(tmp_path):
    there = tmp_path / "archive"
    image(there / "scan-a.nii.gz")
    label(there / "mask-a.nii.gz")
    entry = {"images": ["../archive/scan-a.nii.gz"], "label": str(there / "mask-a.nii.gz")}
    gone = {"images": ["../archive/gone.nii.gz"], "label": "../archive/mask-a.nii.gz"}
    folder = descriptor(
        tmp_path / "Dataset001_X", {**PROSTATE, "channel_names": {"0": "T2"}, "dataset": {"a": entry, "b": gone}}
    )
    found = read(folder)
    assert found.cases[0].id == "a"
    assert found.cases[0].images[0].samefile(there / "scan-a.nii.gz")
    assert [problem.where for problem in found.problems if problem.where == "b"] == ["b"]


@pytest.mark.parametrize("place", ["nnUNet_raw/Dataset001_X", "nnUNet_preprocessed/Dataset001_X"])
def test_splits_beside_the_data_or_in_preprocessed(tmp_path, place):
    folder = raw(tmp_path / "nnUNet_raw" / "Dataset001_X")
    splits = [{"train": ["p_1", "p_3"], "val": ["p_2"]}, {"train": ["p_2"], "val": ["p_1", "p_3"]}]
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "splits_final.json").write_text(json.dumps(splits))
    assert {case.id: case.fold for case in read(folder).cases} == {"p_1": 1, "p_2": 0, "p_3": 1}


def test_splits_that_validate_a_case_twice_are_left_out_aloud(tmp_path):
    folder = raw(tmp_path)
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": ["p_1"], "val": ["p_2"]}, {"train": ["p_1"], "val": ["p_2"]}])
    )
    found = read(folder)
    assert {case.fold for case in found.cases} == {None}
    assert any("p_2 is validated in folds 0 and 1" in note for note in found.notes)


def test_labels_without_images_and_images_without_labels(tmp_path):
    folder = raw(tmp_path)
    label(folder / "labelsTr/lost.nii.gz")
    (folder / "labelsTr/p_3.nii.gz").unlink()
    found = read(folder)
    said = {problem.where: problem.what for problem in found.problems}
    assert said["lost"] == "label lost.nii.gz has no image"
    assert said["p_3"] == "has no label in labelsTr; taken as a testing case"
    assert found.cases[2].split == "testing"


def test_one_case_in_two_endings_is_refused_by_name(tmp_path):
    folder = raw(tmp_path)
    image(folder / "imagesTr/p_1_0000.nii")
    with pytest.raises(DataError, match=r"p_1 \(channel 0000\)  is the id of 2: .*p_1_0000\.nii"):
        read(folder)


def test_missing_channel_names_say_what_to_write(tmp_path):
    folder = raw(tmp_path)
    descriptor(folder, {"labels": {"background": 0, "PZ": 1}, "file_ending": ".nii.gz"})
    with pytest.raises(DataError, match="channel_names  is missing; expected for instance"):
        read(folder)


@pytest.mark.parametrize("suffix", ["_0000", ""])
def test_four_digits_in_the_id_with_and_without_the_channel_suffix(tmp_path, suffix):
    for number in (1, 2):
        image(tmp_path / f"imagesTr/liver_{number:04d}{suffix}.nii.gz")
        label(tmp_path / f"labelsTr/liver_{number:04d}.nii.gz")
    found = read(descriptor(tmp_path, {**PROSTATE, "channel_names": {"0": "CT"}, "numTraining": 2}))
    assert [(case.id, case.label is not None) for case in found.cases] == [("liver_0001", True), ("liver_0002", True)]
    assert not found.problems


def test_every_unusable_value_of_a_descriptor_is_named(tmp_path):
    folder = descriptor(
        tmp_path, {"channel_names": {"zero": "CT"}, "labels": [], "file_ending": ".nii.gz", "numTraining": "many"}
    )
    with pytest.raises(DataError) as raised:
        read(folder)
    assert all(word in str(raised.value) for word in ("channel_names", "labels", "numTraining", "has 3 problems"))


def test_splits_of_another_form_are_refused(tmp_path):
    folder = raw(tmp_path)
    (folder / "splits_final.json").write_text('{"train": [], "val": []}')
    with pytest.raises(DataError, match="is not a list of"):
        read(folder)


def test_splits_that_leave_training_cases_out_are_said(tmp_path):
    place = raw(tmp_path / "Dataset005_Prostate")
    (place / "splits_final.json").write_text(json.dumps([{"train": ["p_1"], "val": ["p_2"]}]))
    notes = read(place).notes
    assert any("fold 0 trains on 1 cases; here on all 2 that it does not validate" in note for note in notes)
    assert any("validates 2 training cases in no fold" in note for note in notes)


def test_a_channel_that_nnunet_does_not_normalise_is_said(tmp_path):
    place = raw(tmp_path / "Dataset006_X", channel_names={"0": "T2", "1": "noNorm"})
    assert any("set plan.normalisation: {noNorm: none}" in note for note in read(place).notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("a_0000.png", "a_0001.png", "b_0000.tif"),
            r"kind that can be read \(found: 2 of \.png, 1 of \.tif\); convert them",
        ),
        ((), r"there is no image in imagesTr or imagesTs"),
    ],
)
def test_a_data_set_without_an_image_that_can_be_read_is_refused(tmp_path, files, words):
    folder = descriptor(tmp_path, {**PROSTATE, "file_ending": ".png"})
    (folder / "imagesTr").mkdir()
    for name in files:
        (folder / "imagesTr" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=words):
        read(folder)
