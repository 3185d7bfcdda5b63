"""Which names predictions get."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.inference.output_paths import output_names, prediction_name


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("liver_7.nii.gz", "liver_7.nii.gz"),
        ("liver_7_0000.nii.gz", "liver_7.nii.gz"),
        ("a.nii", "a.nii.gz"),
        ("a.mha", "a.mha"),
        ("a.nrrd", "a.nrrd"),
        ("orig.mgz", "orig.nii.gz"),
    ],
)
def test_predictions_keep_the_name_of_their_input(image, name):
    assert prediction_name([Path("x") / image]) == name


def test_cases_whose_files_share_a_name_are_written_under_their_ids():
    images = {"sub-01": [Path("sub-01/T1.nii.gz")], "sub-02": [Path("sub-02/T1.nii.gz")], "c": [Path("c.mha")]}
    assert output_names(images) == {"sub-01": "sub-01.nii.gz", "sub-02": "sub-02.nii.gz", "c": "c.mha"}


def test_two_inputs_that_would_write_one_output_are_refused_by_name():
    images = {"a": [Path("a.nii.gz")], "a ": [Path("a.mgz")], "a.nii": [Path("x/a.nii.gz")]}
    names = output_names(images)
    assert len(set(names.values())) == 3
    with pytest.raises(DataError, match=r"b\.nii\.gz +would be written for each of x/a\.nii, b\.nii\.gz"):
        output_names({"b": [Path("x/a.nii")], "c": [Path("y/a.nii.gz")], "d": [Path("b.nii.gz")]})
