"""BIDS folders with derivatives."""

import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.base.machine import Runtime
from pipeline.dataset.checks.check_dataset import find_faults
from pipeline.dataset.manifest import read_manifest
from pipeline.layouts.formats.bids import is_bids, read
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.small_layouts import AFFINE, SHAPE, image, label


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


def mask(folder, subject, structure, first, last, value=1, affine=AFFINE):
    """A mask of the slabs `first` to `last` - 1 along the first axis."""
    array = np.zeros(SHAPE, np.uint8)
    array[first:last] = value
    path = folder / f"derivatives/manual/{subject}/anat/{subject}_{structure}_mask.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def heads(folder, count=3):
    for subject in (f"sub-0{i}" for i in range(1, count + 1)):
        image(folder / f"{subject}/anat/{subject}_T1w.nii.gz")
    return folder


def merged(result, case):
    """The label map that the manifest names, slab by slab, read by nibabel."""
    label = next(each.label for each in result.dataset.cases if each.id == case)
    array = np.asarray(nib.load(result.manifest.parent / result.dataset.root / label).dataobj)
    assert (array == array[:, :1, :1]).all()
    return array[:, 0, 0].tolist()


def test_masks_of_several_structures_become_one_label_map(tmp_path):
    folder = heads(tmp_path / "data")
    for subject in ("sub-01", "sub-02"):
        mask(folder, subject, "label-AM", 0, 2)
        mask(folder, subject, "hemi-L_label-HC", 3, 6, value=255)
    result = init_dataset(folder, tmp_path / "mine.yaml")
    assert dict(result.dataset.labels) == {"AM": 1, "HC_L": 2}
    assert merged(result, "sub-01") == [1, 1, 0, 2, 2, 2]
    assert [case.split for case in result.dataset.cases] == ["training", "training", "testing"]
    assert "merged into the label maps in mine.labels/" in result.message and not result.problems
    dataset = read_manifest(result.manifest)
    root = result.manifest.parent / dataset.root
    assert not [fault for fault in find_faults(dataset, root, Runtime(executor="serial")) if fault.severity == "fatal"]


def test_masks_that_share_voxels_overlap_and_are_named(tmp_path):
    folder = heads(tmp_path / "data")
    for subject in ("sub-01", "sub-02"):
        mask(folder, subject, "label-whole", 0, 4)
        mask(folder, subject, "label-core", 2, 3 if subject == "sub-01" else 5)
    result = init_dataset(folder, tmp_path / "mine.yaml")
    assert result.dataset.overlapping
    assert dict(result.dataset.labels) == {"core": (1, 3), "whole": (2, 3)}
    assert merged(result, "sub-01") == [2, 2, 3, 2, 0, 0]
    assert merged(result, "sub-02") == [2, 2, 3, 3, 1, 0]
    (problem,) = result.problems
    assert problem.where == "masks core and whole"
    assert "share 60 voxels in 2 cases (sub-01, sub-02)" in problem.what


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda folder: mask(folder, "sub-02", "label-B", 3, 4, affine=2 * AFFINE), "lies on another grid"),
        (lambda folder: mask(folder, "sub-02", "label-B", 3, 4, value=np.arange(20).reshape(5, 4)), "where a mask has"),
    ],
)
def test_masks_that_do_not_go_together_leave_their_case_out_by_name(tmp_path, fault, words):
    folder = heads(tmp_path / "data", count=2)
    mask(folder, "sub-01", "label-A", 0, 2)
    mask(folder, "sub-01", "label-B", 3, 4)
    mask(folder, "sub-02", "label-A", 0, 2)
    fault(folder)
    result = init_dataset(folder, tmp_path / "mine.yaml")
    assert [case.id for case in result.dataset.cases] == ["sub-01"]
    (problem,) = result.problems
    assert problem.where == "sub-02" and words in problem.what and "left out" in problem.what


def test_a_mask_that_one_case_lacks_is_said(tmp_path):
    folder = heads(tmp_path / "data", count=2)
    for subject, structure in (("sub-01", "A"), ("sub-01", "B"), ("sub-02", "A")):
        mask(folder, subject, f"label-{structure}", 0 if structure == "A" else 3, 3 if structure == "A" else 5)
    result = init_dataset(folder, tmp_path / "mine.yaml")
    assert [(p.where, "has no mask of B" in p.what) for p in result.problems] == [("sub-02", True)]


def test_a_table_of_names_that_fits_nothing_is_said_and_not_used(tmp_path):
    folder = bids(tmp_path)
    (folder / "derivatives/manual/dseg.tsv").write_text("index\tname\n40\tleft\n41\tright\n")
    result = init_dataset(folder, tmp_path / "mine.yaml")
    assert dict(result.dataset.labels) == {"label_1": 1, "label_2": 2}
    assert any("has no value that occurs" in problem.what for problem in result.problems)


@pytest.mark.parametrize(
    ("entity", "more"), [("seg", "Schaefer"), ("atlas", "Schaefer"), ("res", "2"), ("acq", "other")]
)
def test_two_label_maps_of_a_case_that_one_entity_tells_apart_are_not_mixed(tmp_path, entity, more):
    folder = heads(tmp_path, count=2)
    for subject, value in (("sub-01", "aseg"), ("sub-01", more), ("sub-02", "aseg")):
        label(folder / f"derivatives/fs/{subject}/anat/{subject}_{entity}-{value}_dseg.nii.gz")
    found = read(folder)
    assert [case.label.name for case in found.cases] == [f"sub-0{i}_{entity}-aseg_dseg.nii.gz" for i in (1, 2)]
    assert f"not used: derivatives/fs *_{entity}-{more}_dseg (1 cases)" in found.notes


def test_label_maps_named_after_scans_of_different_protocols_are_one_kind(tmp_path):
    for subject, protocol in (("sub-01", "mprage"), ("sub-02", "spgr")):
        image(tmp_path / f"{subject}/anat/{subject}_acq-{protocol}_T1w.nii.gz")
        label(tmp_path / f"derivatives/manual/{subject}/anat/{subject}_acq-{protocol}_dseg.nii.gz")
    assert [case.split for case in read(tmp_path).cases] == ["training", "training"]


def test_derivatives_without_a_pipeline_folder_are_of_one_kind(tmp_path):
    folder = heads(tmp_path, count=2)
    for subject in ("sub-01", "sub-02"):
        label(folder / f"derivatives/{subject}/anat/{subject}_dseg.nii.gz")
    found = read(folder)
    assert [case.split for case in found.cases] == ["training", "training"]
    assert "label maps: derivatives *_dseg (2 cases)" in found.notes


def test_a_second_label_map_of_one_name_is_left_out_by_name(tmp_path):
    folder = heads(tmp_path, count=1)
    for place in ("anat", "old"):
        label(folder / f"derivatives/manual/sub-01/{place}/sub-01_dseg.nii.gz")
    found = read(folder)
    assert found.cases[0].label.parent.name == "anat"
    (problem,) = found.problems
    assert problem.where == "sub-01"
    assert problem.what.startswith(
        "derivatives/manual/sub-01/old/sub-01_dseg.nii.gz is a label map of the same kind as"
    )


def test_a_data_set_of_which_no_case_is_left_is_refused_with_what_was_wrong(tmp_path):
    folder = heads(tmp_path / "data", count=1)
    mask(folder, "sub-01", "label-A", 0, 2)
    mask(folder, "sub-01", "label-B", 3, 4, affine=2 * AFFINE)
    with pytest.raises(DataError, match=r"(?s)sub-01  .*lies on another grid.*cases   none is left"):
        init_dataset(folder, tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()
