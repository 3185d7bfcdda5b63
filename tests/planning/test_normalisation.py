"""Normalisation, crop, class weights and sides, from numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.planning.normalisation import (
    decide_crop,
    decide_mirroring,
    inverse_frequency,
    plan_channels,
    sided_structures,
)
from tests.planning.loaded_cases import make_case, make_cases

SHAPE, SPACING = (10, 10, 10), (1.0, 1.0, 1.0)


def test_ct_takes_the_foregrounds_percentiles_and_pooled_deviation() -> None:
    rows = [
        {"foreground_p005": -100.0, "foreground_p995": 200.0, "foreground_mean": 40.0, "foreground_std": 30.0},
        {"foreground_p005": -80.0, "foreground_p995": 300.0, "foreground_mean": 60.0, "foreground_std": 50.0},
    ]
    cases = make_cases([make_case(i, SHAPE, SPACING, intensity=row) for i, row in enumerate(rows)], modality="CT")
    (plan,), reason = plan_channels(cases.channels, cases.training(), {})
    assert (plan.scheme, plan.lower, plan.upper, plan.mean) == ("ct", -90.0, 250.0, 50.0)
    assert plan.std == pytest.approx(np.sqrt((30**2 + 50**2) / 2 + 10**2), abs=1e-3)
    assert "CT has a fixed scale" in reason


def test_other_channels_are_scaled_by_themselves_and_pins_go_first() -> None:
    cases = make_cases([make_case(0, SHAPE, SPACING)])
    assert plan_channels(cases.channels, cases.training(), {})[0][0].scheme == "zscore"
    (pinned,), reason = plan_channels(cases.channels, cases.training(), {"x": "none"})
    assert pinned.scheme == "none" and "pinned" in reason
    with pytest.raises(ConfigError, match=r"plan.normalisation names the channel 'xx'; did you mean 'x'\?"):
        plan_channels(cases.channels, cases.training(), {"xx": "none"})


def test_images_are_cropped_where_most_of_them_lose_a_quarter() -> None:
    """Of 10 × 10 × 10 voxels a box of 9 × 9 × 9 is 73 %, one of 10 × 10 × 8 is 80 %."""
    whole = [make_case(i, SHAPE, SPACING) for i in range(4)]
    small = [case.model_copy(update={"nonzero_shape": (9, 9, 9)}) for case in whole]
    assert decide_crop([*small[:3], whole[3]])[0] == "nonzero"
    assert decide_crop([*small[:2], *whole[2:]])[0] == "none"
    assert decide_crop([case.model_copy(update={"nonzero_shape": (10, 10, 8)}) for case in whole])[0] == "none"
    assert "has 73% of an image's voxels" in decide_crop(small)[1]


def test_images_that_are_mostly_0_are_normalised_over_the_rest() -> None:
    empty = {"p50": 0.0, "min": 0.0}
    cases = make_cases([make_case(i, SHAPE, SPACING, intensity=empty if i < 3 else None) for i in range(4)])
    assert plan_channels(cases.channels, cases.training(), {})[0][0].nonzero
    full = make_cases([make_case(i, SHAPE, SPACING) for i in range(4)])
    assert not plan_channels(full.channels, full.training(), {})[0][0].nonzero
    # One voxel of 1e6 does not make voxels of 80 into zeros, and those of a PET are small but none.
    hot, pet = {"min": 0.0, "max": 1e6, "p50": 80.0}, {"min": 0.0, "max": 40.0, "p50": 0.02}
    for row in (hot, pet):
        cases = make_cases([make_case(i, SHAPE, SPACING, intensity=row) for i in range(4)])
        assert not plan_channels(cases.channels, cases.training(), {})[0][0].nonzero


def test_class_weights_are_inverse_to_volume_with_mean_1() -> None:
    cases = make_cases([make_case(i, SHAPE, SPACING, label_voxels={"a": 90, "b": 10}) for i in range(2)])
    weights = inverse_frequency(cases, "none", SPACING)
    assert np.mean(weights) == pytest.approx(1, abs=1e-4)
    assert np.allclose(np.array(weights) * [900, 90, 10], weights[0] * 900, rtol=1e-3)
    overlapping = make_cases(cases.cases, overlapping=True)
    assert len(inverse_frequency(overlapping, "none", SPACING)) == 2


def test_a_class_that_is_nowhere_weighs_as_the_smallest_that_is_there() -> None:
    """1000 voxels, 90 of a and 10 of b: by its own volume c would weigh four, and all others together nothing."""
    cases = make_cases([make_case(0, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})], structures=["a", "b", "c"])
    weights = np.array(inverse_frequency(cases, "none", SPACING))
    assert np.allclose(weights * [900, 90, 10, 10], weights[0] * 900, rtol=1e-3)
    nothing = make_cases([make_case(0, SHAPE, SPACING, label_voxels={"d": 1})], overlapping=True)
    assert inverse_frequency(nothing, "none", SPACING) == (1.0, 1.0)


def test_class_weights_count_what_a_loss_sees() -> None:
    """Of 1000 voxels a crop keeps 5 × 6 × 10 = 300; 40 of them are ignored, 90 + 10 labelled: 160 are background."""
    case = make_case(0, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})
    kept = case.model_copy(update={"nonzero_shape": (5, 6, 10), "ignored_voxels": 40})
    weights = inverse_frequency(make_cases([kept]), "nonzero", SPACING)
    assert np.allclose(np.array(weights) * [160, 90, 10], weights[0] * 160, rtol=1e-3)


def test_class_weights_count_voxels_of_the_planned_grid() -> None:
    """Two scans of one body: b's volume is 10 ml in both, though one has it in eight times as many voxels."""
    fine = make_case(0, (20, 20, 20), (0.5, 0.5, 0.5), label_voxels={"a": 720, "b": 80})
    coarse = make_case(1, SHAPE, SPACING, label_voxels={"a": 90, "b": 10})
    both = inverse_frequency(make_cases([fine, coarse]), "none", SPACING)
    assert both == inverse_frequency(make_cases([coarse, coarse]), "none", SPACING)


def test_sides_are_read_from_names() -> None:
    sided = ["LeftParotid", "kidney_right", "Femur-L", "lung lt"]
    sided += ["ctx-lh-cuneus", "Parotid.L", "LParotid", "Kidney_L_cyst", "RAdrenal", "LVertebral"]
    others = [
        "Liver",
        "bright_spot",
        "Leftover",
        "cleft",
        "vertebra_L1",
        "LV",
        "GTVp",
        "MRScan",
        "CTV_low",
        "LVmyo",
        "RA",
        "RVcavity",
    ]
    assert sided_structures([*sided, *others]) == sided


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rkid", "lkid"),
        ("rad", "lad"),
        ("LeftKidney1", "RightKidney1"),
        ("leftkidney", "rightkidney"),
        ("rene_sx", "rene_dx"),
        ("rinon_izquierdo", "rinon_derecho"),
        ("rim_esquerdo", "rim_direito"),
        ("linkeniere", "rechteniere"),
        ("reingauche", "reindroit"),
        ("glandegauche", "glandedroite"),
        ("KidneyL", "kidneyR"),
        ("左肾", "右肾"),
    ],
)
def test_sides_are_seen_where_the_other_side_has_its_name(one: str, other: str) -> None:
    structures = [one, "spleen", other]
    assert sided_structures(structures) == [one, other]
    axes, reason = decide_mirroring(structures, ())
    assert axes == () and f"{one}, {other} would be taken for their other side" in reason
    assert decide_mirroring(structures, [(one, other)])[0] == ()


def test_glued_names_alone_have_no_side_and_the_pair_is_said() -> None:
    assert decide_mirroring(["rkid", "spleen", "liver", "leftovers"], ())[0] == (0,)
    assert "taken for a left and a right: lkid and rkid" in decide_mirroring(["rkid", "lkid"], ())[1]
    heart = ["LV", "RV", "LA", "RA", "LVmyo", "RVmyo", "LV_endo", "RV_endo"]
    assert sided_structures(heart) == []


def test_with_pairs_every_structure_that_has_a_side_needs_one() -> None:
    """Images are flipped as soon as there is one pair: lung_left would be learned on the right."""
    structures = ["kidney_left", "kidney_right", "liver", "lung_left", "lung_right", "rad", "lad"]
    kidneys, lungs, adrenals = (structures[0], structures[1]), (structures[3], structures[4]), ("rad", "lad")
    with pytest.raises(ConfigError, match=r"left_right_pairs leaves out lung_left, lung_right, rad, lad:"):
        decide_mirroring(structures, [kidneys])
    assert decide_mirroring(structures, [kidneys, lungs, adrenals])[0] == ()


@pytest.mark.parametrize(("pairs", "twice"), [((("a", "a"),), "a"), ((("a", "b"), ("c", "b")), "b")])
def test_a_structure_has_one_other_side(pairs: tuple[tuple[str, str], ...], twice: str) -> None:
    with pytest.raises(ValidationError, match=rf"names {twice} more than once; a structure changes places"):
        PlanConfig(left_right_pairs=pairs)


def test_mirroring_keeps_sides_apart() -> None:
    assert decide_mirroring(["liver", "spleen"], ())[0] == (0,)
    axes, reason = decide_mirroring(["RightParotid", "LeftParotid", "Mandible"], ())
    assert axes == () and "RightParotid, LeftParotid" in reason
    assert decide_mirroring(["r", "l"], [("r", "l")])[0] == ()
    axes, reason = decide_mirroring(["label_1", "label_2"], ())
    assert axes == () and "label_1, label_2 have no names" in reason
    with pytest.raises(ConfigError, match=r"left_right_pairs names 'LeftParotit'; did you mean 'LeftParotid'"):
        decide_mirroring(["RightParotid", "LeftParotid"], [("RightParotid", "LeftParotit")])
