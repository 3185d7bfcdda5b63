"""Folders in which names mislead: who is whose, what is a label map, and which of several files is meant.

Each was misread once. A folder is written as paths with {} for the persons, and a letter for what is in each file.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.layouts.folders.split_images_and_labels import NO_PATTERNS, FilePatterns
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.small_layouts import AFFINE, SHAPE, image, label


def make(folder: Path, files: str, persons: tuple[str, ...]) -> None:
    """I: an image. L: labels 1 and 2. B: a mask. E: an empty one. F: a film of three volumes. J: no image at all."""
    for entry in files.split():
        pattern, kind = entry.rsplit(":", 1)
        for number, person in enumerate(persons, start=1):
            path = folder / f"{pattern.replace('{}', person)}.nii.gz"
            if kind == "I":
                image(path)
            elif kind == "F":
                image(path, channels=3)
            elif kind == "L":
                label(path, 1, 2)
            elif kind in ("B", "E"):
                path.parent.mkdir(parents=True, exist_ok=True)
                array = np.zeros(SHAPE, np.uint8)
                array[number % SHAPE[0], :, len(path.name) % SHAPE[2]] = kind == "B"
                nib.save(nib.Nifti1Image(array, AFFINE), path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"junk")


PERSONS = ("anna", "bert", "carl")


def cases_of(folder: Path, config: Path, chosen: FilePatterns = NO_PATTERNS) -> dict[str, tuple[str, list[str], str]]:
    """Case id to subject, images and label, the paths below `folder`; masks that were merged are called so."""
    dataset = init_dataset(folder, config, chosen=chosen).dataset

    def below(path: str) -> str:
        return "merged" if ".labels/" in path else path.removeprefix(f"{folder.name}/").removesuffix(".nii.gz")

    return {
        case.id: (case.subject, [below(path) for path in case.images], below(case.label) if case.label else "")
        for case in dataset.cases
    }


@pytest.mark.parametrize(
    ("files", "case", "found"),
    [
        ("baseline/{}/t1:I baseline/{}/seg:L followup/{}/t1:I followup/{}/seg:L", "baseline_anna", "anna"),
        ("{}/visit1/anat/t1:I {}/visit1/anat/seg:L {}/visit2/anat/t1:I {}/visit2/anat/seg:L", "anna_visit2", "anna"),
        ("{}/week-1/pre/t1:I {}/week-1/seg:L {}/week-2/pre/t1:I {}/week-2/seg:L", "anna_week-1", "anna"),
        ("{}/left/ct:I {}/left/seg:L {}/right/ct:I {}/right/seg:L", "anna_left", "anna"),
        ("images/{}_visit1:I labels/{}_visit1:L images/{}_visit2:I labels/{}_visit2:L", "anna_visit1", "anna"),
        ("images/{}_left:I labels/{}_left:L images/{}_right:I labels/{}_right:L", "anna_left", "anna"),
        ("2019/{}/t1:I 2019/{}/seg:L 2021/{}/t1:I 2021/{}/seg:L", "2021_anna", "anna"),
        (
            "A/Patient_{}/t1:I A/Patient_{}/seg:L B/Patient_{}/t1:I B/Patient_{}/seg:L",
            "A_Patient_anna",
            "A_Patient_anna",
        ),
        ("images/{}_t1:I masks/{}_t1:L images/{}_stir:I masks/{}_stir:L", "anna_stir", "anna"),
    ],
)
def test_scans_of_one_person_are_of_one_subject(files, case, found, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    cases = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert len(cases) == 6
    assert cases[case][0] == found


def test_cases_of_several_folders_whose_persons_nothing_tells_are_said(tmp_path):
    make(tmp_path / "data", "north/{}/t1:I north/{}/seg:L south/{}/t1:I south/{}/seg:L", PERSONS)
    message = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").message
    assert "cases are called by several folders (north/anna, north/bert, " in message
    assert "each is taken for another person" in message


@pytest.mark.parametrize(
    ("files", "anna"),
    [
        # Label maps by their voxels, though one is empty or broken.
        ("{}/t1:I {}/seg:L {}/lesion:E", (["anna/t1", "anna/lesion"], "anna/seg")),
        ("x/{}:I y/{}:L", (["x/anna"], "y/anna")),
        ("{}:I {}_organ:L", (["anna"], "anna_organ")),
        ("images/{}_0000:I images/{}_0001:I roi/{}:L", (["images/anna_0000", "images/anna_0001"], "roi/anna")),
        ("{}/ct:I {}/liver:B {}/spleen:B", (["anna/ct"], "merged")),
        ("images/{}:I masks/liver/{}:B", (["images/anna"], "merged")),
        ("images/{}:I masks/liver/{}:L", (["images/anna"], "masks/liver/anna")),
        # Predictions.
        ("{}/ct:I {}/seg:B {}/seg_pred:B", (["anna/ct"], "anna/seg")),
        ("{}/ct:I {}/truth:L {}/pred:L", (["anna/ct"], "anna/truth")),
        # Who drew them, or what.
        ("{}/ct:I {}/masks/liver_manual:B {}/masks/spleen_manual:B", (["anna/ct"], "merged")),
        # A film is none of a case's channels, unless it is what most cases have.
        ("{}/t1:I {}/t1_4d:F {}/seg:L", (["anna/t1"], "anna/seg")),
    ],
)
def test_what_belongs_to_a_case(files, anna, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert {case: (sorted(images), own) for case, (_, images, own) in found.items()}["anna"] == (
        sorted(anna[0]),
        anna[1],
    )
    assert len(found) == 3


def test_a_label_map_that_is_empty_in_some_cases_is_no_channel(tmp_path):
    make(tmp_path / "data", "{}/t1:I {}/seg:L {}/lesion:B", PERSONS)
    make(tmp_path / "data", "{}/lesion:E", ("bert",))
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert {case: images for case, (_, images, _) in found.items()} == {p: [f"{p}/t1"] for p in PERSONS}


def test_a_structure_that_each_case_may_lack_keeps_its_name(tmp_path):
    for name, files in (("flat", "images/{}:I"), ("folders", "{}/ct:I")):
        folder = tmp_path / name
        make(folder, files, PERSONS)
        masks = "masks/{1}/{0}:B" if name == "flat" else "{0}/{1}_mask:B"
        make(folder, masks.format("{}", "liver"), PERSONS[:2])
        make(folder, masks.format("{}", "spleen"), PERSONS[2:])
        dataset = init_dataset(folder, tmp_path / "mine.yaml").dataset
        assert dict(dataset.labels) == {"liver": 1, "spleen": 2}


def test_one_odd_image_changes_no_other_case(tmp_path):
    make(tmp_path / "data", "{}/bold:F {}/seg:L", PERSONS)
    make(tmp_path / "data", "{}/t1:I", ("anna",))
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert {case: images for case, (_, images, _) in found.items()} == {p: [f"{p}/bold"] for p in PERSONS}


def test_a_template_above_the_cases_is_a_testing_case(tmp_path):
    make(tmp_path / "data", "{}/t1:I {}/seg:L template:I", PERSONS)
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert found.pop("data") == ("data", ["template"], "")
    assert found.keys() == set(PERSONS)


def test_unreadable_channels_are_named_and_end_nothing(tmp_path):
    make(tmp_path / "data", "{}/t1:I {}/t2:I {}/seg:L", PERSONS)
    make(tmp_path / "data", "{}/t1:J", ("anna", "bert"))
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [problem.where for problem in result.problems] == ["anna", "bert"]
    assert [channel.name for channel in result.dataset.channels] == ["t1", "t2"]


@pytest.mark.parametrize("test", ["Testing Set", "test_set", "testset", "TestData", "Test-Images", "ct_test"])
def test_folders_for_testing(test, tmp_path):
    make(tmp_path / "data", "Training_Set/{}/ct:I Training_Set/{}/seg:L", PERSONS)
    image(tmp_path / f"data/{test}/dora/ct.nii.gz")
    label(tmp_path / f"data/{test}/dora/seg.nii.gz", 1, 2)
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert [case.id for case in dataset.cases if case.split == "testing"] == ["dora"]


def test_a_label_map_in_a_folder_for_testing_makes_a_testing_case(tmp_path):
    make(tmp_path / "data", "images/{}:I labels/train/{}:L", ("anna", "bert"))
    make(tmp_path / "data", "images/{}:I labels/test/{}:L", ("carl",))
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert {case.id: case.split for case in dataset.cases} == {
        "anna": "training",
        "bert": "training",
        "carl": "testing",
    }


NOTHING_MATCHES = "no label map has an image of its name"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("images/{}_right:I labels/{}_left:L", NOTHING_MATCHES),
        ("images/{}_baseline:I labels/{}_followup:L", NOTHING_MATCHES),
        ("baseline/{}:I followup/{}_seg:L", NOTHING_MATCHES),
        ("images/{}_arterial:I images/{}_late:I labels/{}_venous:L", NOTHING_MATCHES),
        ("train/images/{}:I test/labels/{}:L", NOTHING_MATCHES),
        ("siteA/ct/{}:I siteB/seg/{}:L", NOTHING_MATCHES),
        ("A/{}1/t1:I A/{}2/t2:I A/wmh:L B/{}3/t1:I B/{}4/t2:I B/wmh:L", NOTHING_MATCHES),
        ("images/liver_{}:I labels/liver_dora:L", NOTHING_MATCHES),
        ("images/{}:I labels/observerA/{}:L labels/observerB/{}:L", NOTHING_MATCHES),
        ("images/{}:I pred_masks/{}:L", "all label maps are predictions by their names"),
        ("imagesTs/{}:I imagesTs_pred/{}:L", "hold files of the same names"),
        ("images/{}:I output_fold0/{}:L", "hold files of the same names"),
        ("{}/orig/flair:I {}/orig/seg:L {}/pre/flair:I {}/pre/seg:L", "orig, pre hold versions of the same scans"),
        ("{}/ct:I {}/seg:B {}/seg_rater2:B", r"2 label maps by several people \(seg, seg_rater2\)"),
        ("{}/ct:I {}/seg_R1:B {}/seg_R2:B", r"2 label maps by several people \(seg_R1, seg_R2\)"),
        ("{}/ct:I {}/annotation_1:B {}/annotation_2:B", "2 label maps by several people"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(files, said, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    with pytest.raises(DataError, match=said):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")


def test_numbers_of_persons_who_are_others_do_not_pair_them(tmp_path):
    for person, year in (("anna", 2019), ("bert", 2020)):
        image(tmp_path / f"images/{person}_{year}.nii.gz")
    for person, year in (("carl", 2019), ("dora", 2020)):
        label(tmp_path / f"labels/{person}_{year}.nii.gz", 1, 2)
    with pytest.raises(DataError, match=NOTHING_MATCHES):
        init_dataset(tmp_path, tmp_path / "mine.yaml")


def test_a_label_map_that_names_another_case_is_named(tmp_path):
    for own, other in (("c1", "c2"), ("c2", "c1")):
        image(tmp_path / f"data/{own}/{own}_t1.nii.gz")
        label(tmp_path / f"data/{own}/{other}_seg.nii.gz", 1, 2)
    (first, _) = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").problems
    assert (first.where, first.what.split(";")[0]) == ("c1", "its label map is c1/c2_seg.nii.gz, which names c2")


@pytest.mark.parametrize(
    ("files", "chosen", "anna"),
    [
        (
            "{}/raw/t1:I {}/raw/seg:L {}/pre/t1:I {}/pre/seg:L",
            FilePatterns(None, "/pre/"),
            (["anna/pre/t1"], "anna/pre/seg"),
        ),
        ("{}/ct:I {}/pet:I {}/ct_seg:L {}/pet_seg:L", FilePatterns(None, "ct"), (["anna/ct"], "anna/ct_seg")),
        ("x/{}:I y/{}:L", FilePatterns("y/anna"), (["x/anna"], "y/anna")),
        ("{}/t1:I {}/wm:B {}/lesion:B", FilePatterns("lesion"), (["anna/t1"], "anna/lesion")),
        ("{}.[ct]:I {}.[roi]:L", FilePatterns("*[roi]*"), (["anna.[ct]"], "anna.[roi]")),
        ("{}/ct:I {}/seg_rater1:L {}/seg_rater2:L", FilePatterns("*/seg_rater1.*"), (["anna/ct"], "anna/seg_rater1")),
        (
            "i/{}:I labels/readerA/{}:L labels/readerB/{}:L",
            FilePatterns("readerA"),
            (["i/anna"], "labels/readerA/anna"),
        ),
    ],
)
def test_what_the_user_says_holds(files, chosen, anna, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml", chosen)
    (case,) = [case for case in found if "anna" in case]
    assert found[case][1:] == anna
    assert len(found) == 3


@pytest.mark.parametrize("patterns", ["", " ", ",", "seg,"])
def test_an_empty_pattern_is_refused(patterns, tmp_path):
    make(tmp_path, "{}/t1:I {}/seg:L", PERSONS)
    with pytest.raises(ConfigError, match=r"--label-files .* has an empty pattern"):
        init_dataset(tmp_path, tmp_path / "mine.yaml", chosen=FilePatterns(patterns))


def test_a_cure_can_be_followed_to_the_letter(tmp_path):
    """The pattern that is suggested is of the file's name in all cases, and of no other's."""
    make(tmp_path / "data", "{}/ct:I {}/{}_tumour_seg:L {}/brain_tumour_seg:B", PERSONS)
    with pytest.raises(DataError, match=r"name it with --label-files '\*_tumour_seg\.nii\.gz'"):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    make(tmp_path / "other", "{}/ct:I {}/masks/tumour:L {}/masks/brain_tumour:B", PERSONS)
    with pytest.raises(DataError, match=r"name it with --label-files '\*/tumour\.nii\.gz'"):
        init_dataset(tmp_path / "other", tmp_path / "mine.yaml")
    found = cases_of(tmp_path / "other", tmp_path / "mine.yaml", FilePatterns("*/tumour.nii.gz"))
    assert [own for _, _, own in found.values()] == [f"{person}/masks/tumour" for person in PERSONS]


@pytest.mark.parametrize(
    ("files", "case", "images"),
    [
        # A series of each person with a label map of its own.
        ("images/{}_t1:I images/{}_t2:I labels/{}_t1_expert_seg:B labels/{}_t2_expert_seg:B", "anna_t1", 6),
        ("train_images/{}_t1:I train_images/{}_t2:I train_labels/{}_t1:L train_labels/{}_t2:L", "anna_t2", 6),
        # Words of one name that tell nothing about the other.
        ("{}_visit1/MRI/{}_visit1:I {}_visit1/{}_visit1_seg:L", "anna_visit1", 3),
        ("img/{}_2019:I img/{}_2021:I gt/{}_2019_ct_seg:L gt/{}_2021_ct_seg:L", "anna_2019", 6),
        # Folders tell the cases, files only what they are.
        ("{}/image/image:I {}/label/label:L", "anna", 3),
        ("{}/img:I {}/Segmentations/4label:L", "anna", 3),
        ("trainA/{}:I trainB/{}:L", "anna", 3),
        ("PRED-{}/ct:I PRED-{}/seg:L", "PRED-anna", 3),
        ("{}/ct:I {}/ground_truth:L {}/prediction:I", "anna", 3),
        ("sub-{}/images/sub-{}_T1w:I sub-{}/sub-{}_lesion_mask:L", "sub-anna", 3),
    ],
)
def test_what_is_told_apart_by_little_is_read(files, case, images, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert case in found and len(found) == images
    assert all(own and len(scans) == 1 for _, scans, own in found.values())


def test_names_that_differ_in_a_separator_alone_are_equal(tmp_path):
    for scan in ("AMC-001", "MGH-002", "UCL-003"):
        image(tmp_path / f"data/scans/{scan}.nii.gz")
        label(tmp_path / f"data/segs/{scan.replace('-', '')}.nii.gz", 1, 2)
    assert cases_of(tmp_path / "data", tmp_path / "mine.yaml").keys() == {"AMC-001", "MGH-002", "UCL-003"}


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        ("img/{}_C0:I img/{}_DE:I img/{}_T2:I gt/{}:L", ["C0", "DE", "T2"]),
        ("{}_CT:I {}_MR_T1:I {}_seg:L", ["CT", "MR_T1"]),
        ("{}_C0:I {}_T2:I {}_gd:B", ["C0", "T2"]),
        ("images/{}_pre:I images/{}_post:I labels/{}:L", ["post", "pre"]),
    ],
)
def test_channels_of_unknown_words_beside_known_ones(files, channels, tmp_path):
    make(tmp_path / "data", files, PERSONS)
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert [channel.name for channel in dataset.channels] == channels
    assert [case.id for case in dataset.cases] == list(PERSONS)


def test_numbers_of_channels_are_not_those_of_cases(tmp_path):
    make(tmp_path / "data", "{}/dce_1:I {}/dce_2:I {}/dce_3:I {}/seg:L", ("1", "2", "3"))
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert [channel.name for channel in dataset.channels] == ["dce_1", "dce_2", "dce_3"]
    assert [[Path(name).name for name in case.images] for case in dataset.cases] == [
        ["dce_1.nii.gz", "dce_2.nii.gz", "dce_3.nii.gz"]
    ] * 3


def test_ventricles_are_no_raters(tmp_path):
    make(tmp_path / "data", "{}/ct:I {}/masks/RV:B {}/masks/RA:B", PERSONS)
    assert list(init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset.labels) == ["RA", "RV"]


def test_one_name_with_a_word_for_predictions_costs_the_others_nothing(tmp_path):
    make(tmp_path / "data", "{}/t1:I {}/wmh:L", ("old_1", "anna", "bert"))
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml")
    assert [own for _, _, own in found.values()] == ["anna/wmh", "bert/wmh", "old_1/wmh"]


def test_label_maps_of_many_structures_are_known_by_their_areas(tmp_path):
    """More values than a label map that is known by its few values may have: in planes of one value each."""
    for person in PERSONS:
        image(tmp_path / f"data/{person}/t1.nii.gz")
        array = np.repeat(np.arange(20, dtype=np.uint8).reshape(1, 5, 4), 6, axis=0)
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"data/{person}/aseg.nii.gz")
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    assert len(dataset.labels) == 19 and [channel.name for channel in dataset.channels] == ["image"]


def test_an_image_that_looks_like_a_label_map_is_named(tmp_path):
    make(tmp_path / "data", "images/{}-rib-cl:B images/{}-rib-seg:L", PERSONS)
    (problem,) = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").problems
    assert problem.what.startswith("images/anna-rib-cl.nii.gz, ") and "have the voxels of label maps" in problem.what


def test_a_prefix_of_all_ids_is_no_person(tmp_path):
    for session in (1, 2, 3):
        image(tmp_path / f"data/images/MR_session{session}.nii.gz")
        label(tmp_path / f"data/labels/MR_session{session}.nii.gz", 1, 2)
    subjects = [case.subject for case in init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset.cases]
    assert subjects == ["MR_session1", "MR_session2", "MR_session3"]


def test_several_people_of_several_structures_are_chosen_by_person(tmp_path):
    make(
        tmp_path / "data", "{}/ct:I {}/liver_rater1:B {}/liver_rater2:B {}/spleen_rater1:B {}/spleen_rater2:B", PERSONS
    )
    with pytest.raises(DataError, match=r"for instance --label-files '\*rater1\*'"):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml", chosen=FilePatterns("*rater1*")).dataset
    assert list(dataset.labels) == ["liver_rater1", "spleen_rater1"]


def test_a_pattern_may_leave_out_the_ending(tmp_path):
    make(tmp_path / "data", "{}/ct:I {}/{}_roi:L", PERSONS)
    found = cases_of(tmp_path / "data", tmp_path / "mine.yaml", FilePatterns("*_roi"))
    assert [own for _, _, own in found.values()] == [f"{person}/{person}_roi" for person in PERSONS]
