"""MSD descriptors, with the oddities that real archives have."""

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.formats.msd import read
from tests.layouts.small_layouts import descriptor, image, label

TASK = {
    "name": "Hippocampus",
    "description": "Left and right hippocampus",
    "reference": "Vanderbilt University Medical Center",
    "licence": "CC-BY-SA 4.0",
    "relase": "1.0 04/05/2018",
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "numTraining": 2,
    "numTest": 1,
    "training": [{"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"} for i in (1, 2)],
    "test": ["./imagesTs/h_3.nii.gz"],
}


def task(folder, **changes):
    for i in (1, 2):
        image(folder / f"imagesTr/h_{i}.nii.gz")
        label(folder / f"labelsTr/h_{i}.nii.gz", 1, 2)
        (folder / f"imagesTr/._h_{i}.nii.gz").write_bytes(b"\0\5\x16\7")
    image(folder / "imagesTs/h_3.nii.gz")
    return descriptor(folder, {**TASK, **changes})


def test_reads_a_task_as_the_decathlon_ships_it(tmp_path):
    found = read(task(tmp_path))
    assert [(case.id, case.split) for case in found.cases] == [
        ("h_1", "training"),
        ("h_2", "training"),
        ("h_3", "testing"),
    ]
    assert found.labelling.structures == {"Anterior": (1,), "Posterior": (2,)}
    assert found.licence == "CC-BY-SA 4.0"
    assert [(channel.name, channel.modality) for channel in found.channels] == [("MRI", "MR")]
    assert not found.problems


def test_channels_of_a_4d_task_and_labels_the_other_way(tmp_path):
    found = read(task(tmp_path, modality={"1": "T1w", "0": "FLAIR"}, labels={"background": 0, "edema": 1}))
    assert [channel.name for channel in found.channels] == ["FLAIR", "T1w"]
    assert found.labelling.structures == {"edema": (1,)}


def test_channels_of_one_name_stay_apart(tmp_path):
    assert [c.name for c in read(task(tmp_path, modality={"0": "MRI", "1": "MRI"})).channels] == ["MRI_0", "MRI_1"]


def test_monai_lists_carry_folds_and_further_columns(tmp_path):
    items = [{"image": "imagesTr/h_1.nii.gz", "label": "labelsTr/h_1.nii.gz", "fold": 3, "site": "north"}]
    validation = [{"image": "imagesTr/h_2.nii.gz", "label": "labelsTr/h_2.nii.gz"}]
    found = read(task(tmp_path, training=items, validation=validation))
    assert [(case.id, case.fold, dict(case.extra)) for case in found.cases[:2]] == [
        ("h_1", 3, {"site": "north"}),
        ("h_2", 0, {}),
    ]


def test_listed_names_may_stand_for_channel_files(tmp_path):
    # nnU-Net's first version listed h_1.nii.gz and stored h_1_0000.nii.gz
    for i in (1, 2):
        image(tmp_path / f"imagesTr/h_{i}_0000.nii.gz")
        label(tmp_path / f"labelsTr/h_{i}.nii.gz")
    found = read(descriptor(tmp_path, {**TASK, "test": []}))
    assert [path.name for case in found.cases for path in case.images] == ["h_1_0000.nii.gz", "h_2_0000.nii.gz"]
    assert [case.id for case in found.cases] == ["h_1", "h_2"]


def test_missing_files_and_wrong_counts_are_listed(tmp_path):
    folder = task(tmp_path, numTraining=260)
    (folder / "imagesTr/h_2.nii.gz").unlink()
    problems = {problem.where: problem.what for problem in read(folder).problems}
    assert problems == {
        "h_2": "listed in dataset.json, but not there: h_2.nii.gz",
        "dataset.json": "numTraining is 260, but 2 cases are listed",
    }


def test_a_descriptor_without_cases_is_refused(tmp_path):
    with pytest.raises(DataError, match="'training' lists no cases"):
        read(descriptor(tmp_path, {"labels": {"0": "background"}}))


def test_four_digits_that_count_cases_stay_in_the_id(tmp_path):
    items = [{"image": f"imagesTr/x_{i:04d}.nii.gz", "label": f"labelsTr/x_{i:04d}.nii.gz"} for i in (1, 2)]
    assert [case.id for case in read(task(tmp_path, training=items, test=[])).cases] == ["x_0001", "x_0002"]
