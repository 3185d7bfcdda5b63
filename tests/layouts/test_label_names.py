"""Label names and values in both directions."""

import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.layouts.formats.dataset_json import labels_from_dataset_json
from pipeline.layouts.formats.nnunet import region_order
from pipeline.layouts.label_option import labels_from_option


def test_both_directions_mean_the_same():
    msd = labels_from_dataset_json({"0": "background", "1": "anterior", "2": "posterior"}, "a.json")
    nnunet = labels_from_dataset_json({"background": 0, "anterior": 1, "posterior": 2}, "a.json")
    assert msd == nnunet
    assert msd.structures == {"anterior": (1,), "posterior": (2,)}


def test_regions_overlap_and_ignore_is_no_structure():
    brats = labels_from_dataset_json(
        {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": 4, "ignore": 5}, "a"
    )
    assert brats.overlapping
    assert brats.ignore_value == 5
    assert list(brats.structures) == ["whole", "core", "enhancing"]
    assert brats.values == {1, 2, 4, 5}


def test_a_region_that_shares_no_value_does_not_overlap():
    assert not labels_from_dataset_json({"kidney": [1, 2], "liver": 3}, "a").overlapping


def test_one_name_for_two_values_is_a_region():
    assert labels_from_dataset_json({"1": "kidney", "2": "kidney"}, "a").structures == {"kidney": (1, 2)}


def test_region_order_gives_each_region_the_value_it_adds():
    # whole 1+2+4 adds 2 (edema) to the core 1+4, which adds 1 to the enhancing 4.
    brats = labels_from_dataset_json({"whole": [1, 2, 4], "core": [1, 4], "enhancing": 4}, "a")
    assert region_order(brats) == [2, 1, 4]


def test_labels_option():
    found = labels_from_option("liver=1, whole tumour=2+3,ignore=255")
    assert found.structures == {"liver": (1,), "whole tumour": (2, 3)}
    assert found.ignore_value == 255


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("liver", "'liver' is not name=value"),
        ("liver=one", "'liver=one' is not name=value"),
        ("liver=1,liver=2", "'liver' is named twice"),
        ("background=0", "declares no structure"),
        ("liver=1,tumour=0", "'tumour=0': 0 is the background of every label map"),
        ("liver=1,background=2+3", "'background=2+3': background is the value 0 alone"),
    ],
)
def test_a_wrong_labels_option_says_how_to_write_it(text, words):
    with pytest.raises(ConfigError, match="--labels") as raised:
        labels_from_option(text)
    assert words in str(raised.value)


def test_a_wrong_value_names_file_and_label():
    with pytest.raises(DataError, match=r"d\.json: label 'liver' is -1"):
        labels_from_dataset_json({"liver": -1}, "d.json")


@pytest.mark.parametrize("labels", [{"background": 255, "liver": 1}, {"255": "background", "1": "liver"}])
def test_another_background_than_0_is_refused_with_its_cure(labels):
    """It was dropped without a word, and its value then called undeclared."""
    with pytest.raises(
        DataError, match=r"d\.json: label 'background' is .*255.*; background is the value 0 alone; set"
    ):
        labels_from_dataset_json(labels, "d.json")


def test_two_names_for_one_value_are_refused():
    with pytest.raises(ConfigError, match=r"'liver' and 'tumour' have the same values, \[1\]"):
        labels_from_option("liver=1,tumour=1")
