"""What looks like one layout and is another: nothing is paired, dropped or joined that does not belong together."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.folders.read_folders import read
from pipeline.layouts.formats.bids import read as read_bids
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.small_layouts import AFFINE, SHAPE, image, label


def planes(path, *values):
    """A label map whose first planes hold these values."""
    array = np.zeros(SHAPE, np.uint8)
    for i, value in enumerate(values):
        array[i] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


@pytest.mark.parametrize(
    ("several", "others"),
    [
        ("seg", {"brain_mask": (1, 1, 1, 1)}),  # three tissues in one brain
        ("masks/lesions", {"masks/liver": (1, 1, 1), "masks/spleen": (0, 0, 0, 1)}),  # two lesions in one liver
        ("masks/tumour", {"masks/liver": (0, 0, 0, 1), "masks/spleen": (0, 0, 0, 0, 1)}),  # they lie elsewhere
    ],
)
def test_a_file_of_several_values_is_dropped_only_where_each_has_a_mask_of_its_own(tmp_path, several, others):
    for case in ("c1", "c2"):
        image(tmp_path / f"data/{case}/ct.nii.gz")
        planes(tmp_path / f"data/{case}/{several}.nii.gz", 1, 2)
        for name, values in others.items():
            planes(tmp_path / f"data/{case}/{name}.nii.gz", *values)
    with pytest.raises(DataError, match="where a mask has one; the case is left out"):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")


def test_a_damaged_mask_does_not_cost_the_others_their_structure(tmp_path):
    """One liver holds two values, which the kidneys' masks do not cover: its case is left out, and no other."""
    for case in ("c1", "c2", "c3"):
        image(tmp_path / f"data/{case}/ct.nii.gz")
        planes(tmp_path / f"data/{case}/masks/liver.nii.gz", 1, 2 if case == "c1" else 1)
        planes(tmp_path / f"data/{case}/masks/left.nii.gz", 0, 0, 1)
        planes(tmp_path / f"data/{case}/masks/right.nii.gz", 0, 0, 0, 1)
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert list(result.dataset.labels) == ["left", "liver", "right"]
    assert [case.id for case in result.dataset.cases] == ["c2", "c3"]
    assert [problem.where for problem in result.problems] == ["c1"]


def test_a_combined_file_is_dropped_where_it_holds_one_organ_too(tmp_path):
    for case, organs in (("c1", (1,)), ("c2", (1, 2)), ("c3", ())):
        image(tmp_path / f"data/{case}/ct.nii.gz")
        planes(tmp_path / f"data/{case}/combined_labels.nii.gz", *(organs or (1, 2)))
        for i, name in enumerate(("aorta", "liver")):
            if case != "c3":
                planes(
                    tmp_path / f"data/{case}/segmentations/{name}.nii.gz", *[int(i == k) for k in range(len(organs))]
                )
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert list(result.dataset.labels) == ["aorta", "liver"]
    assert [case.id for case in result.dataset.cases] == ["c1", "c2"]
    assert [(p.where, p.what) for p in result.problems] == [
        ("c3", "has combined and no mask of a single structure; left out")
    ]


@pytest.mark.parametrize("mask", ["labels/{structure}/case_{i:04d}", "labels/case_{i:04d}_{structure}"])
def test_patients_with_four_digits_are_not_channels_of_one_with_masks(tmp_path, mask):
    for i in (1, 2, 3):
        image(tmp_path / f"images/case_{i:04d}.nii.gz")
        for structure in ("liver", "spleen"):
            label(tmp_path / f"{mask.format(structure=structure, i=i)}.nii.gz")
    found = read(tmp_path)
    assert [(case.id, sorted(case.masks)) for case in found.cases] == [
        (f"case_{i:04d}", ["liver", "spleen"]) for i in (1, 2, 3)
    ]


def test_masks_in_folders_of_cases_and_a_mask_of_no_image(tmp_path):
    for case in ("c1", "c2", "c3"):
        image(tmp_path / f"images/{case}.nii.gz")
        for structure in ("liver", "spleen"):
            label(tmp_path / f"segmentations/{case}/{structure}.nii.gz")
    (tmp_path / "images/c2.nii.gz").unlink()
    found = read(tmp_path)
    assert [(case.id, sorted(case.masks)) for case in found.cases] == [
        ("c1", ["liver", "spleen"]),
        ("c3", ["liver", "spleen"]),
    ]
    assert [p.where for p in found.problems] == ["liver.nii.gz", "spleen.nii.gz"]


def test_raters_are_no_structures(tmp_path):
    for case in ("c1", "c2"):
        image(tmp_path / f"images/{case}.nii.gz")
        for rater in (1, 2):
            label(tmp_path / f"labels/rater{rater}/{case}.nii.gz")
    with pytest.raises(DataError, match="no label map has an image of its name"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["sbref", "dwi"])
def test_diffusion_is_no_channel_of_labels_that_lie_on_an_anatomical_scan(tmp_path, suffix):
    for case in ("sub-01", "sub-02"):
        image(tmp_path / f"{case}/anat/{case}_acq-mprage_T1w.nii.gz")
        for direction in ("AP", "PA"):
            image(tmp_path / f"{case}/dwi/{case}_dir-{direction}_{suffix}.nii.gz")
        label(tmp_path / f"derivatives/m/{case}/anat/{case}_space-T1w_dseg.nii.gz")
    found = read_bids(tmp_path)
    assert [channel.name for channel in found.channels] == ["T1w"]
    assert [case.split for case in found.cases] == ["training"] * 2 and not found.problems


@pytest.mark.parametrize("empty", [0, 12])
def test_one_label_map_unlike_the_others_of_its_name_is_one_too(tmp_path, empty):
    """One is empty, or holds more structures than a label map known by its values alone may."""
    for i in (1, 2, 3, 4):
        image(tmp_path / f"p{i}/flair.nii.gz")
        label(tmp_path / f"p{i}/lesion.nii.gz", 1, 2)
    array = np.arange(120).reshape(SHAPE) % (empty + 1)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), AFFINE), tmp_path / "p3/lesion.nii.gz")
    assert [case.label is not None for case in read(tmp_path).cases] == [True] * 4


@pytest.mark.parametrize("folders", [("images", "predictions"), ("imagesTs", "out"), ("a", "b")])
def test_neither_predictions_nor_a_single_odd_scan_are_label_maps(tmp_path, folders):
    for i in (1, 2, 3, 4):
        for folder in folders:
            image(tmp_path / f"{folder}/p{i}.nii.gz")
        if folders[1] != "b" or i == 4:
            label(tmp_path / f"{folders[1]}/p{i}.nii.gz")
    with pytest.raises(DataError, match="hold files of the same names"):
        read(tmp_path)


def test_an_unlabelled_case_has_the_channels_of_the_others(tmp_path):
    for case in ("c1", "c2", "c3"):
        for channel in ("venous", "arterial"):
            image(tmp_path / f"{case}_{channel}.nii.gz")
        if case != "c3":
            label(tmp_path / f"{case}_mask.nii.gz")
    found = read(tmp_path)
    assert [(case.id, len(case.images), case.split) for case in found.cases] == [
        ("c1", 2, "training"),
        ("c2", 2, "training"),
        ("c3", 2, "testing"),
    ]


def test_many_images_of_one_label_map_are_no_channels(tmp_path):
    for i in range(1, 6):
        image(tmp_path / f"brain_{i:02d}.nii.gz")
    label(tmp_path / "brain_mask.nii.gz")
    with pytest.raises(DataError, match="no label map has an image of its name"):
        read(tmp_path)


def test_a_channel_order_that_is_declared_stays_and_one_slipped_grid_changes_none(tmp_path):
    for case in ("p1", "p2", "p3"):
        for channel in ("t1", "t2"):
            image(tmp_path / f"data/{case}/{channel}.nii.gz")
        label(tmp_path / f"data/{case}/seg.nii.gz")
    slipped = tmp_path / "data/p1/t1.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(slipped).dataobj), 1.1 * AFFINE), slipped)
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert [channel.name for channel in dataset.channels] == ["t1", "t2"]


def test_hospitals_and_parts_of_a_data_set_are_neither_folds_nor_persons(tmp_path):
    for site in ("MGH", "VA"):
        for i in (1, 2):
            image(tmp_path / f"sites/{site}/images/{site}{i}.nii.gz")
            label(tmp_path / f"sites/{site}/labels/{site}{i}.nii.gz")
    assert {case.fold for case in read(tmp_path / "sites").cases} == {None}
    for part, number in (("img", 1), ("img", 2), ("val", 7)):
        image(tmp_path / f"parts/{part}/{part}_{number}.nii.gz")
        label(tmp_path / f"parts/{part}/{part}_{number}_seg.nii.gz")
    assert {case.subject for case in read(tmp_path / "parts").cases} == {""}


def test_dated_studies_in_folders_of_patients_are_of_one_subject(tmp_path):
    for patient in ("patient_1", "patient_2"):
        for study in ("2020", "2021"):
            image(tmp_path / f"{patient}/{patient}_{study}/ct.nii.gz")
            label(tmp_path / f"{patient}/{patient}_{study}/seg.nii.gz")
    assert [case.subject for case in read(tmp_path).cases] == ["patient_1", "patient_1", "patient_2", "patient_2"]


def test_labelled_cases_in_folders_below_others_stay(tmp_path):
    for case in ("p1", "p2"):
        for place in (case, f"{case}/{case}_followup"):
            image(tmp_path / f"{place}/ct.nii.gz")
            label(tmp_path / f"{place}/seg.nii.gz")
    assert sorted(case.id for case in read(tmp_path).cases) == ["p1", "p1_followup", "p2", "p2_followup"]


def test_one_missing_label_map_does_not_make_further_files_cases(tmp_path):
    for i in (1, 2, 3):
        image(tmp_path / f"case_{i}/imaging.nii.gz")
        label(tmp_path / f"case_{i}/instances/kidney_annotation-1.nii.gz")
        if i < 3:
            label(tmp_path / f"case_{i}/segmentation.nii.gz")
    assert [(case.id, case.split) for case in read(tmp_path).cases] == [
        ("case_1", "training"),
        ("case_2", "training"),
        ("case_3", "testing"),
    ]


@pytest.mark.parametrize("part", ["test", "Ts"])
def test_folders_for_testing_with_a_separator(tmp_path, part):
    for kind, write in (("images", image), ("labels", label)):
        write(tmp_path / f"{kind}_train/c1.nii.gz")
        write(tmp_path / f"{kind}_{part}/c2.nii.gz")
    assert [(case.id, case.split) for case in read(tmp_path).cases] == [("c1", "training"), ("c2", "testing")]
