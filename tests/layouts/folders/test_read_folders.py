"""Image and label folders, matched by name."""

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.folders.read_folders import read
from tests.layouts.small_layouts import image, label


def pairs(found):
    return {case.id: (len(case.images), case.label.name if case.label else None) for case in found.cases}


def test_two_folders_with_equal_names(tmp_path):
    for name in ("a_1", "b.2"):
        image(tmp_path / "images" / f"{name}.nii.gz")
        label(tmp_path / "labels" / f"{name}.nii.gz")
    image(tmp_path / "unlabelled" / "c.nii.gz")
    found = read(tmp_path)
    assert pairs(found) == {"a_1": (1, "a_1.nii.gz"), "b.2": (1, "b.2.nii.gz"), "c": (1, None)}
    assert [case.split for case in found.cases] == ["training", "training", "testing"]
    assert any("1 images without a label map became testing cases: c" in note for note in found.notes)


@pytest.mark.parametrize(
    ("image_name", "label_name", "case"),
    [
        ("c01.nii.gz", "c01_seg.nii.gz", "c01"),
        ("img0001.nii.gz", "label0001.nii.gz", "img0001"),
        ("volume-10.nii", "segmentation-10.nii", "volume-10"),
        ("images/c01_ct.nii.gz", "masks/c01_mask.nii.gz", "c01_ct"),
        ("imagesTr/c01_0000.nii.gz", "labelsTr/c01.nii.gz", "c01"),
        ("kits/case_7/imaging.nii.gz", "kits/case_7/segmentation.nii.gz", "case_7"),
        ("c01/c01.nii.gz", "c01/c01_gt.nii.gz", "c01"),
        ("data/c01.nii.gz", "data/c01_seg.nii.gz", "c01"),
        ("images/scan_012.nii.gz", "labels/p012_lab.nii.gz", "scan_012"),
    ],
)
def test_name_patterns(tmp_path, image_name, label_name, case):
    image(tmp_path / image_name)
    label(tmp_path / label_name)
    found = read(tmp_path)
    assert pairs(found) == {case: (1, label_name.split("/")[-1])}
    assert not found.problems


@pytest.mark.parametrize(
    "pattern", ["images/{case}_{channel}.nii.gz", "{case}/{case}_{channel}.nii.gz", "{case}/{channel}.nii.gz"]
)
def test_channels_from_words(tmp_path, pattern):
    for case in ("p1", "p2"):
        for channel in ("t1", "flair"):
            image(tmp_path / pattern.format(case=case, channel=channel))
        label(tmp_path / (f"labels/{case}.nii.gz" if "images" in pattern else f"{case}/seg.nii.gz"))
    found = read(tmp_path)
    assert [channel.name for channel in found.channels] == ["flair", "t1"]
    assert [case.id for case in found.cases] == ["p1", "p2"]
    assert found.cases[0].images[0].name.endswith("flair.nii.gz")
    assert all(case.label is not None for case in found.cases)


def test_channels_from_suffixes_and_a_missing_one_is_named(tmp_path):
    for case in ("p1", "p2", "p3"):
        image(tmp_path / "images" / f"{case}_0000.nii.gz")
        label(tmp_path / "labels" / f"{case}.nii.gz")
    for case in ("p1", "p2"):
        image(tmp_path / "images" / f"{case}_0001.nii.gz")
    found = read(tmp_path)
    assert [channel.name for channel in found.channels] == ["channel_0", "channel_1"]
    (problem,) = found.problems
    assert problem.where == "p3"
    assert problem.what == "channel 0001 is missing; expected p3_0001.nii.gz"


def test_two_files_of_one_id_are_refused_by_name(tmp_path):
    image(tmp_path / "images" / "a.nii.gz")
    image(tmp_path / "images" / "a.nii")
    label(tmp_path / "labels" / "a.nii.gz")
    with pytest.raises(DataError) as raised:
        read(tmp_path)
    assert "a.nii.gz" in str(raised.value)
    assert "a.nii," in str(raised.value) or "a.nii;" in str(raised.value)


def test_one_id_in_two_sites_is_refused_by_name(tmp_path):
    for site in ("north", "south"):
        image(tmp_path / site / "images" / "a.nii.gz")
        label(tmp_path / site / "labels" / "a.nii.gz")
    with pytest.raises(DataError, match=r"north/images/a\.nii\.gz, south/images/a\.nii\.gz"):
        read(tmp_path)


def test_a_label_without_an_image_is_listed(tmp_path):
    image(tmp_path / "images" / "a.nii.gz")
    label(tmp_path / "labels" / "a.nii.gz")
    label(tmp_path / "labels" / "b.nii.gz")
    (problem,) = read(tmp_path).problems
    assert problem.where == "b.nii.gz"


def test_the_folder_named_like_the_case_is_the_subject(tmp_path):
    for frame in ("frame01", "frame12"):
        image(tmp_path / "patient001" / f"patient001_{frame}.nii.gz")
        label(tmp_path / "patient001" / f"patient001_{frame}_gt.nii.gz")
    found = read(tmp_path)
    assert {case.subject for case in found.cases} == {"patient001"}
    assert [case.id for case in found.cases] == ["patient001_frame01", "patient001_frame12"]


def test_hidden_and_apple_double_files_are_no_images(tmp_path):
    image(tmp_path / "images" / "a.nii.gz")
    label(tmp_path / "labels" / "a.nii.gz")
    (tmp_path / "images" / "._a.nii.gz").write_bytes(b"\0\5\x16\7")
    image(tmp_path / "__MACOSX" / "images" / "a.nii.gz")
    assert len(read(tmp_path).cases) == 1


@pytest.mark.parametrize("label_name", ["labels/case_{:04d}.nii.gz", "labels/case_{:04d}_seg.nii.gz"])
def test_four_digits_that_count_cases_are_no_channels(tmp_path, label_name):
    for number in (0, 1, 2):
        image(tmp_path / f"images/case_{number:04d}.nii.gz")
        label(tmp_path / label_name.format(number))
    found = read(tmp_path)
    assert [case.id for case in found.cases] == ["case_0000", "case_0001", "case_0002"]
    assert all(case.label is not None for case in found.cases)


def test_four_digits_of_the_case_and_of_the_channel(tmp_path):
    for number in (1, 2):
        image(tmp_path / f"images/case_{number:04d}_0000.nii.gz")
        image(tmp_path / f"images/case_{number:04d}_0001.nii.gz")
        label(tmp_path / f"labels/case_{number:04d}.nii.gz")
    found = read(tmp_path)
    assert pairs(found) == {"case_0001": (2, "case_0001.nii.gz"), "case_0002": (2, "case_0002.nii.gz")}


def test_label_maps_that_match_no_image_are_refused_with_an_example(tmp_path):
    image(tmp_path / "images/anna.nii.gz")
    label(tmp_path / "labels/berta.nii.gz")
    with pytest.raises(
        DataError, match=r"no label map has an image of its name \(such as berta\.nii\.gz and anna\.nii\.gz\)"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "label_name"),
    [
        ("images/{}.nii.gz images/{}_pet.nii.gz", "labels/{}.nii.gz"),
        ("{}/image.nii.gz {}/image_pet.nii.gz", "{}/seg.nii.gz"),
    ],
)
def test_a_channel_may_have_no_word(tmp_path, pattern, label_name):
    for case in ("c1", "c2"):
        for name in pattern.format(case, case).split():
            image(tmp_path / name)
        label(tmp_path / label_name.format(case))
    found = read(tmp_path)
    assert [(channel.name, channel.modality) for channel in found.channels] == [("image", "MR"), ("pet", "PET")]
    assert pairs(found) == {case: (2, label_name.format(case).split("/")[-1]) for case in ("c1", "c2")}
    assert not found.problems


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        ("c1.nii.gz", "the image without a channel's name is missing; expected c1.nii.gz"),
        ("c1_pet.nii.gz", "channel pet is missing; expected c1_pet.nii.gz"),
    ],
)
def test_of_channels_with_and_without_a_word_each_can_be_missing(tmp_path, gone, what):
    for case in ("c1", "c2"):
        for name in (f"{case}.nii.gz", f"{case}_pet.nii.gz"):
            image(tmp_path / "images" / name)
        label(tmp_path / f"labels/{case}.nii.gz")
    (tmp_path / "images" / gone).unlink()
    assert [(problem.where, problem.what) for problem in read(tmp_path).problems] == [("c1", what)]


@pytest.mark.parametrize("usual", ["_t1", ""])
def test_one_stray_image_makes_no_channel(tmp_path, usual):
    for number in range(5):
        image(tmp_path / f"images/c{number}{usual}.nii.gz")
        label(tmp_path / f"labels/c{number}.nii.gz")
    before = read(tmp_path)
    image(tmp_path / "images/c3_t2.nii.gz")
    after = read(tmp_path)
    assert (after.cases, after.channels) == (before.cases, before.channels)
    assert [(p.where, p.what) for p in after.problems] == [
        (f"c3{usual}", "c3_t2.nii.gz: most cases have no such channel; left out")
    ]


def test_channels_are_those_of_the_labelled_cases(tmp_path):
    for case in ("c1", "c2"):
        for channel in ("t1", "t2"):
            image(tmp_path / f"images/{case}_{channel}.nii.gz")
        label(tmp_path / f"labels/{case}.nii.gz")
    for number in range(9):
        image(tmp_path / f"images/d{number}_t1.nii.gz")
    assert [channel.name for channel in read(tmp_path).channels] == ["t1", "t2"]


def test_the_only_image_of_a_case_that_is_named_for_another_channel_is_said(tmp_path):
    for name in ("a_t1", "b_t1", "c_t1", "c_t2", "d_t2", "e_t1"):
        image(tmp_path / f"images/{name}.nii.gz")
    for case in "abcde":
        label(tmp_path / f"labels/{case}.nii.gz")
    assert [(p.where, p.what) for p in read(tmp_path).problems] == [
        ("c_t1", "c_t2.nii.gz: most cases have no such channel; left out"),
        ("d_t2", "d_t2.nii.gz: most cases have t1; look whether it is that"),
    ]


@pytest.mark.parametrize("masks", ["segmentations/{}", "structures/{}", "mask_{}", "masks/{}_mask"])
def test_a_folder_per_case_with_a_mask_per_structure(tmp_path, masks):
    for case in ("s1", "s2"):
        image(tmp_path / case / "ct.nii.gz")
        for structure in ("liver", "kidney_left"):
            label(tmp_path / case / f"{masks.format(structure)}.nii.gz")
    image(tmp_path / "s3/ct.nii.gz")
    found = read(tmp_path)
    assert [(case.id, case.split, sorted(case.masks)) for case in found.cases] == [
        ("s1", "training", ["kidney_left", "liver"]),
        ("s2", "training", ["kidney_left", "liver"]),
        ("s3", "testing", []),
    ]
    assert [case.images[0].name for case in found.cases] == ["ct.nii.gz"] * 3
    assert any("1 images without a label map became testing cases: s3" in note for note in found.notes)


@pytest.mark.parametrize("name", ["seg/seg", "labels/{}", "masks/{}_mask", "structures/segmentation", "labels/organs"])
def test_the_only_label_file_of_a_case_folder_is_its_label_map(tmp_path, name):
    """It was taken for the mask of a structure called `seg`, and refused case by case for its several values."""
    for case, values in (("c1", (1,)), ("c2", (1, 2, 3))):
        image(tmp_path / case / "ct.nii.gz")
        label(tmp_path / case / f"{name.format(case)}.nii.gz", *values)
    image(tmp_path / "c3/ct.nii.gz")
    found = read(tmp_path)
    assert pairs(found) == {
        **{case: (1, f"{name.split('/')[1].format(case)}.nii.gz") for case in ("c1", "c2")},
        "c3": (1, None),
    }
    assert not found.problems and not any(case.masks for case in found.cases)


def test_one_mask_a_case_stays_a_structure(tmp_path):
    """Its name, where it has one value in all cases, and where names differ."""
    for case in ("c1", "c2"):
        image(tmp_path / case / "ct.nii.gz")
        label(tmp_path / case / "masks/liver.nii.gz", 1)
    assert [sorted(case.masks) for case in read(tmp_path).cases] == [["liver"]] * 2
    (tmp_path / "c2/masks/liver.nii.gz").rename(tmp_path / "c2/masks/spleen.nii.gz")
    label(tmp_path / "c1/masks/liver.nii.gz", 1, 2)
    assert [sorted(case.masks) for case in read(tmp_path).cases] == [["liver"], ["spleen"]]


@pytest.mark.parametrize(("names", "masks"), [(["liver", "spleen"], ["liver", "spleen"]), (["seg"], [])])
def test_images_and_masks_in_folders_of_their_own_below_each_case(tmp_path, names, masks):
    for case in ("c1", "c2"):
        image(tmp_path / case / "images/ct.nii.gz")
        for name in names:
            label(tmp_path / case / f"masks/{name}.nii.gz", 1)
    found = read(tmp_path)
    assert [(case.id, sorted(case.masks)) for case in found.cases] == [("c1", masks), ("c2", masks)]
    assert [case.label is not None for case in found.cases] == [not masks] * 2


@pytest.mark.parametrize("name", ["deep_structures_t1", "delineations_t1"])
def test_words_that_are_a_label_folders_do_not_make_an_image_a_label_map(tmp_path, name):
    for case in ("c1", "c2"):
        image(tmp_path / case / f"{name}.nii.gz")
        label(tmp_path / case / "seg.nii.gz")
    assert [case.images[0].name for case in read(tmp_path).cases] == [f"{name}.nii.gz"] * 2


def test_two_masks_of_one_name_in_a_case_are_not_guessed_at(tmp_path):
    image(tmp_path / "s1/ct.nii.gz")
    for rater in ("a", "b"):
        label(tmp_path / f"s1/masks/{rater}/liver.nii.gz")
    with pytest.raises(DataError, match="no label map has an image of its name"):
        read(tmp_path)


def test_a_mask_that_repeats_its_case_is_of_the_same_structure_in_all(tmp_path):
    for case in ("p1_c1", "liver_2"):
        image(tmp_path / case / f"{case}_ct.nii.gz")
        for structure in ("liver", "spleen"):
            label(tmp_path / case / f"{case}_{structure}_mask.nii.gz")
    assert [sorted(case.masks) for case in read(tmp_path).cases] == [["liver", "spleen"]] * 2


@pytest.mark.parametrize("folders", [("images",), ("scans",), ("a/images", "b/images"), ("patients",)])
def test_patients_in_one_folder_are_not_channels_of_one_case(tmp_path, folders):
    """Their label maps lie below it under other names. They were taken for one case with a mask per patient."""
    for folder in folders:
        for patient, other in (("anna", "x"), ("bert", "y")):
            image(tmp_path / folder / f"{patient}.nii.gz")
            label(tmp_path / folder / "labels" / f"{other}.nii.gz")
    with pytest.raises(DataError, match="no label map has an image of its name"):
        read(tmp_path)


def test_equal_names_in_folders_of_unknown_kind_are_explained(tmp_path):
    """No word says which folder is which: the way out is one folder's name, not that of every file."""
    for folder in ("x", "y"):
        for case in ("c1", "c2"):
            image(tmp_path / folder / f"{case}.nii.gz")
    with pytest.raises(DataError, match=r"x, y hold files of the same names, .*; call their folder labels"):
        read(tmp_path)
