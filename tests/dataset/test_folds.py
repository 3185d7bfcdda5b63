"""Folds: no subject is split, the manifest's own are kept, every case is validated once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import DataError
from pipeline.dataset.folds import given_folds, make_folds
from pipeline.dataset.loaded_cases import Case


def a_case(name: str, subject: str, fold: int | None = None) -> Case:
    return Case(
        id=name,
        subject=subject,
        images=(f"{name}.nii.gz",),
        label=f"{name}_label.nii.gz",
        split="training",
        fold=fold,
        shape=(4, 4, 4),
        spacing_mm=(1.0, 1.0, 1.0),
        orientation="RAS",
        affine=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        sha256={},
    )


@given(subjects=st.lists(st.integers(0, 9), min_size=2, max_size=30), count=st.integers(2, 6), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_every_case_is_validated_once_and_no_subject_is_split(subjects: list[int], count: int, seed: int) -> None:
    cases = [a_case(f"c{i}", f"s{subject}") for i, subject in enumerate(subjects)]
    folds = make_folds(cases, count, seed)["folds"]
    if len(set(subjects)) == 1:
        assert folds == []
        return
    assert len(folds) == min(count, len(set(subjects)))
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(case.id for case in cases)
    subject_of = {case.id: case.subject for case in cases}
    for fold in folds:
        assert set(fold["train"]) | set(fold["val"]) == set(subject_of)
        assert not {subject_of[name] for name in fold["train"]} & {subject_of[name] for name in fold["val"]}


def test_sizes_are_even_and_the_seed_decides() -> None:
    cases = [a_case(f"c{i:02d}", f"s{i}") for i in range(23)]
    first, second = make_folds(cases, 5, seed=0), make_folds(cases, 5, seed=1)
    assert sorted(len(fold["val"]) for fold in first["folds"]) == [4, 4, 5, 5, 5]
    assert first == make_folds(cases, 5, seed=0) and first != second
    assert first["source"] == "made"


def test_the_manifests_folds_are_kept_and_the_rest_fills_up() -> None:
    cases = [a_case("a", "1", 0), a_case("b", "2", 1), a_case("c", "3", 1), a_case("d", "4"), a_case("e", "2")]
    result = make_folds(cases, 5)
    assert result["source"] == "manifest" and len(result["folds"]) == 2
    assert result["folds"][0]["val"] == ["a", "d"] and result["folds"][1]["val"] == ["b", "c", "e"]


def test_a_subject_in_two_folds_is_refused() -> None:
    with pytest.raises(DataError, match=r"subject 1 is in several folds \(a in fold 0, b in fold 1\)"):
        make_folds([a_case("a", "1", 0), a_case("b", "1", 1)], 2)


@pytest.mark.parametrize(
    ("folds", "used"),
    [
        ([0, 2, None, None], [0, 1, 2]),  # the gap is filled
        ([1, None, None], [0, 1]),  # as where fold 0's cases are left out
        ([0, None, None], [0, 1]),  # one fold would leave nothing to train on
        ([0, 4, None], [0, 4]),
        ([1, 3], [1, 3]),
        ([None, None], []),
    ],
)
def test_cases_without_a_fold_fill_those_that_the_manifest_leaves_empty(
    folds: list[int | None], used: list[int]
) -> None:
    cases = [a_case(f"c{i}", f"s{i}", fold) for i, fold in enumerate(folds)]
    assert given_folds(cases) == used
    found = make_folds(cases, 2)["folds"]
    assert len(found) == (len(used) or 2) and all(fold["val"] and fold["train"] for fold in found)


def test_folds_of_the_manifest_without_a_case_are_passed_over() -> None:
    """Folds 1 and 3 are counted as 0 and 1; the case without a fold joins the smaller one."""
    cases = [a_case("a", "1", 1), a_case("b", "2", 1), a_case("c", "3", 3), a_case("d", "4")]
    result = make_folds(cases, 5)
    assert given_folds(cases) == [1, 3] and result["source"] == "manifest"
    assert [fold["val"] for fold in result["folds"]] == [["a", "b"], ["c", "d"]]
    assert [fold["train"] for fold in result["folds"]] == [["c", "d"], ["a", "b"]]
