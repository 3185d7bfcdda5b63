"""Structures that have a side, and the flips that they leave."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.planning.mirroring import decide_mirroring, sided_structures


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
