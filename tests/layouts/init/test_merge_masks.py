"""Masks of many structures, as TotalSegmentator's data has them: 117 files a case and a table beside them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError
from pipeline.dataset.manifest import read_manifest
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.small_layouts import image, label

STRUCTURES = [f"structure_{number:03d}" for number in range(117)]
SHAPE = (12, 10, 4)


def a_body(folder, cases=("s0001", "s0004"), shared=(), splits=None):
    """Case folders with an image and all masks; each structure is a few voxels of its own, in every case others.

    shared: structures to which the first voxel of another is given too: {structure: other}. Returns case to masks.
    """
    everything = {}
    for seed, case in enumerate(cases):
        owner = np.random.default_rng(seed).permutation(np.arange(np.prod(SHAPE)) % 160).reshape(SHAPE)
        masks = {name: owner == number for number, name in enumerate(STRUCTURES)}
        for name, other in dict(shared).items():
            masks[name] = masks[name].copy()
            masks[name].flat[np.flatnonzero(masks[other])[0]] = True
        (folder / case / "segmentations").mkdir(parents=True)
        image = np.random.default_rng(10 + seed).normal(0, 300, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / case / "ct.nii.gz")
        for name, mask in masks.items():
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)), folder / case / f"segmentations/{name}.nii.gz")
        everything[case] = masks
    rows = [f"{case};60;m;A;{split}" for case, split in zip(cases, splits or ["train"] * len(cases), strict=True)]
    rows = ["\ufeffimage_id;age;gender;institute;split", *rows, "s9999;33;f;B;train"]
    (folder / "meta.csv").write_text("\n".join(rows), encoding="utf-8")
    return everything


def label_maps(result):
    dataset = read_manifest(result.manifest)
    root = result.manifest.parent / dataset.root
    return dataset, {case.id: np.asarray(nib.load(root / case.label).dataobj) for case in dataset.cases}


def test_117_masks_a_case_become_one_label_map(tmp_path):
    masks = a_body(tmp_path / "data")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    dataset, found = label_maps(result)
    assert dict(dataset.labels) == {name: number for number, name in enumerate(STRUCTURES, start=1)}
    assert not dataset.overlapping and not result.problems
    assert list(found) == list(masks)
    for case, own in masks.items():
        for name, mask in own.items():
            np.testing.assert_array_equal(found[case] == dataset.labels[name], mask)


def test_of_more_than_can_overlap_the_smaller_structure_has_what_is_shared(tmp_path):
    """Structure 5 gets a voxel of structure 9, and is the larger one then; both are named."""
    masks = a_body(tmp_path / "data", shared={STRUCTURES[5]: STRUCTURES[9]})
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    dataset, found = label_maps(result)
    assert not dataset.overlapping
    for case, own in masks.items():
        smaller = min((own[STRUCTURES[5]].sum(), 5), (own[STRUCTURES[9]].sum(), 9))[1]
        larger = 14 - smaller
        np.testing.assert_array_equal(found[case] == smaller + 1, own[STRUCTURES[smaller]])
        np.testing.assert_array_equal(found[case] == larger + 1, own[STRUCTURES[larger]] & ~own[STRUCTURES[smaller]])
    (problem,) = result.problems
    assert problem.where == "masks structure_005 and structure_009"
    assert "share 2 voxels in 2 cases (s0001, s0004); more than 62 structures cannot overlap" in problem.what


def test_what_one_structure_has_of_several_others_is_told_for_each_pair(tmp_path):
    a_body(tmp_path / "data", shared={STRUCTURES[0]: STRUCTURES[1], STRUCTURES[2]: STRUCTURES[1]})
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [problem.where.split() for problem in result.problems] == [
        ["masks", STRUCTURES[i], "and", STRUCTURES[j]] for i, j in ((0, 1), (0, 2), (1, 2))
    ]


def test_labels_choose_masks_and_give_their_values(tmp_path):
    masks = a_body(tmp_path / "data")
    chosen = f"{STRUCTURES[50]}=7,{STRUCTURES[3]}=2"
    dataset, found = label_maps(init_dataset(tmp_path / "data", tmp_path / "mine.yaml", labels=chosen))
    assert dict(dataset.labels) == {STRUCTURES[3]: 2, STRUCTURES[50]: 7}
    for case, own in masks.items():
        expected = np.where(own[STRUCTURES[50]], 7, np.where(own[STRUCTURES[3]], 2, 0))
        np.testing.assert_array_equal(found[case], expected)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("stricture_003=1", "'stricture_003' is no mask here; did you mean 'structure_003'?"),
        ("structure_001=1+2", "'structure_001' has several values, but there is a mask for each structure"),
        ("structure_001=1,ignore=9", "each mask has a value of its own, and none is ignored"),
    ],
)
def test_labels_that_no_masks_are_called_are_refused(tmp_path, labels, said):
    a_body(tmp_path / "data")
    with pytest.raises(ConfigError) as raised:
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml", labels=labels)
    assert said in str(raised.value)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("empty", [STRUCTURES[:1], STRUCTURES])
def test_a_structure_that_is_nowhere_has_its_value_all_the_same(tmp_path, empty):
    a_body(tmp_path / "data", cases=("s1", "s2", "s3"))
    for name in empty:
        path = tmp_path / f"data/s1/segmentations/{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), path)
    dataset, found = label_maps(init_dataset(tmp_path / "data", tmp_path / "mine.yaml"))
    assert len(dataset.labels) == 117
    assert set(np.unique(found["s1"])) == {0, *(dataset.labels[name] for name in STRUCTURES if name not in empty)}


def test_the_table_beside_the_case_folders_tells_splits_and_further_columns(tmp_path):
    a_body(tmp_path / "data", cases=("s1", "s2", "s3"), splits=("train", "val", "test"))
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert result.layout == "folders"
    assert "meta.csv has a row for every case, by its column 'image_id'" in result.message
    assert [(case.id, case.split, case.fold) for case in result.dataset.cases] == [
        ("s1", "training", 1),
        ("s2", "training", 0),
        ("s3", "testing", None),
    ]
    assert dict(result.dataset.cases[0].extra) == {"age": "60", "gender": "m", "institute": "A"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_id;site\ns1;A\n", None),
        ("image_id;site;split\ns1;A;train\nS2;A;test\n", "no row for s3; not used: add rows"),
        ("image_id;site\ns1;A\ns2;A\ns3;B\ns3;C\n", "no row for s3; not used: add rows"),
        ('image_id;site\ns1;"A\ns2;A\ns3;B\n', None),
    ],
)
def test_a_table_that_does_not_name_each_case_once_is_not_used_and_named(tmp_path, text, said):
    a_body(tmp_path / "data", cases=("s1", "s2", "s3"))
    (tmp_path / "data/meta.csv").write_text(text)
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [problem.where for problem in result.problems] == ["meta.csv"] * (said is not None)
    assert all(said is not None and said in problem.what for problem in result.problems)
    assert not any(case.extra for case in result.dataset.cases)


def test_of_two_such_tables_none_is_used(tmp_path):
    a_body(tmp_path / "data")
    (tmp_path / "data/more.tsv").write_text("case\tsite\ns0001\tA\ns0004\tB\n")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [(p.where, "none is used" in p.what) for p in result.problems] == [("meta.csv and more.tsv", True)]
    assert not any(case.extra for case in result.dataset.cases)


def test_a_table_tells_persons_and_splits_and_what_it_does_not_tell_is_said(tmp_path):
    """Two scans of one person stay together; what would name a person is not kept; ids are compared in any case."""
    cases = ("s1", "s2", "s3")
    a_body(tmp_path / "up/data", cases=cases)
    rows = ["S1,77,2020,1.0,train,x@y", "S2,77,2021,0.0,internal_test,x@z", "S3,78,2022,,test,z@z"]
    (tmp_path / "up/data/meta.csv").write_text("\n".join(["case,patient_id,year,fold,subset,email", *rows]))
    result = init_dataset(tmp_path / "up", tmp_path / "mine.yaml")
    assert [(case.subject, case.split, case.fold) for case in result.dataset.cases] == [
        ("patient_001", "training", 1),
        ("patient_001", "training", 0),
        ("patient_002", "testing", None),
    ]
    assert [dict(case.extra) for case in result.dataset.cases][::2] == [{"year": "2020"}, {"year": "2022"}]
    (problem,) = result.problems
    assert "subset is 'internal_test' for 1 cases: not understood" in problem.what


def test_cases_that_are_only_counted_are_joined_by_a_column_of_names_alone(tmp_path):
    a_body(tmp_path / "data", cases=("1", "2", "3"))
    (tmp_path / "data/meta.csv").write_text("scanner,rank,split\nA,1,test\nB,2,train\nC,3,train\n")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [case.split for case in result.dataset.cases] == ["training"] * 3


def test_a_table_of_patients_is_joined_by_subject(tmp_path):
    for case in ("p1_a", "p1_b", "p2_a"):
        image(tmp_path / f"data/{case[:2]}/{case}.nii.gz")
        label(tmp_path / f"data/{case[:2]}/{case}_gt.nii.gz")
    (tmp_path / "data/patients.csv").write_text("patient,split\np1,test\np2,train\n")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [(case.id, case.split) for case in result.dataset.cases] == [
        ("p1_a", "testing"),
        ("p1_b", "testing"),
        ("p2_a", "training"),
    ]
