"""BIDS folders with derivatives."""

import json

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.bids import is_bids, read
from tests.layouts.making import image, label


def bids(folder, suffixes=("T1w",), session=""):
    (folder / "dataset_description.json").write_text(
        json.dumps({"Name": "Heads", "License": "CC0", "BIDSVersion": "1.8.0"})
    )
    for subject in ("sub-01", "sub-02"):
        place, name = (f"{subject}/{session}", f"{subject}_{session}") if session else (subject, subject)
        for suffix in suffixes:
            image(folder / f"{place}/anat/{name}_{suffix}.nii.gz")
        label(folder / f"derivatives/manual/{place}/anat/{name}_space-orig_dseg.nii.gz", 1, 2)
    image(folder / "sub-01/func/sub-01_task-rest_bold.nii.gz", channels=3)
    image(folder / f"sub-03/anat/sub-03_{suffixes[0]}.nii.gz")
    return folder


def test_scans_labels_and_what_has_none(tmp_path):
    found = read(bids(tmp_path))
    assert [(case.id, case.split, case.subject) for case in found.cases] == [
        ("sub-01", "training", "sub-01"),
        ("sub-02", "training", "sub-02"),
        ("sub-03", "testing", "sub-03"),
    ]
    assert found.cases[0].label.name == "sub-01_space-orig_dseg.nii.gz"
    assert (found.name, found.licence) == ("Heads", "CC0")


def test_suffixes_are_channels_and_sessions_part_of_the_id(tmp_path):
    found = read(bids(tmp_path, ("T1w", "FLAIR"), session="ses-1"))
    assert [channel.name for channel in found.channels] == ["FLAIR", "T1w"]
    assert [case.id for case in found.cases] == ["sub-01_ses-1", "sub-02_ses-1"]
    assert found.cases[0].subject == "sub-01"
    assert [(p.where, p.what) for p in found.problems] == [("sub-03", "has no FLAIR; left out")]


def test_two_scans_of_one_kind_are_two_cases_by_all_their_entities(tmp_path):
    folder = bids(tmp_path)
    image(folder / "sub-01/anat/sub-01_acq-fast_T1w.nii.gz")
    assert "sub-01_acq-fast" in [case.id for case in read(folder).cases]


def test_names_come_from_the_lookup_table_and_people_from_participants(tmp_path):
    folder = bids(tmp_path)
    (folder / "derivatives/manual/dseg.tsv").write_text(
        "index\tname\tcolor\n0\tbackground\t#000\n1\tleft\t#f00\n2\tright\t#0f0\n9\tnever\t#00f\n"
    )
    (folder / "participants.tsv").write_text("participant_id\tage\tsite\nsub-01\t34\tnorth\nsub-02\tn/a\tsouth\n")
    found = read(folder)
    assert found.labelling.structures == {"left": (1,), "right": (2,), "never": (9,)}
    assert found.labelling_is_lookup
    assert [dict(case.extra) for case in found.cases] == [{"age": "34", "site": "north"}, {"site": "south"}, {}]


def test_binary_masks_name_their_structure(tmp_path):
    image(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    label(tmp_path / "derivatives/hc/sub-01/anat/sub-01_label-HC_mask.nii.gz")
    assert is_bids(tmp_path)
    assert read(tmp_path).labelling.structures == {"HC": (1,)}


def test_of_several_derivatives_the_fullest_is_taken_aloud(tmp_path):
    folder = bids(tmp_path)
    label(folder / "derivatives/auto/sub-01/anat/sub-01_desc-net_dseg.nii.gz")
    notes = read(folder).notes
    assert "label maps: derivatives/manual *_space-orig_dseg (2 cases)" in notes
    assert "not used: derivatives/auto *_desc-net_dseg (1 cases)" in notes


def test_a_folder_without_scans_is_refused(tmp_path):
    assert not is_bids(tmp_path)
    with pytest.raises(DataError, match="no BIDS scans"):
        read(tmp_path)


def test_label_maps_beside_the_scans(tmp_path):
    image(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    label(tmp_path / "sub-01/anat/sub-01_dseg.nii.gz")
    found = read(tmp_path)
    assert [(case.id, case.label.name) for case in found.cases] == [("sub-01", "sub-01_dseg.nii.gz")]
    assert [channel.name for channel in found.channels] == ["T1w"]


def test_case_folders_that_only_sound_like_bids_are_none(tmp_path):
    image(tmp_path / "sub-01/sub-01_t1.nii.gz")
    label(tmp_path / "sub-01/sub-01_seg.nii.gz")
    assert not is_bids(tmp_path)
