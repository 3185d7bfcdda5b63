"""Mirroring axes: which flips augmentation may use, and the structures that have a left and a right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.base.errors import ConfigError, did_you_mean

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_SIDE = re.compile(r"(left|right|links|rechts|gauche|droite?|lt|rt|lh|rh)\d*|l|r", re.I)
# Of the heart, whose left and right are no mirror images: LVmyo, and LV or RA as a word.
_CHAMBER = re.compile(r"[LR][VA](myo|cavity|blood|wall|epi|endo|pool|lumen)", re.I)
_CHAMBER_WORD = re.compile(r"[LR][VA]", re.I)
_NO_NAME = re.compile(r"label_\d+")
# How languages write a left and a right, also within a word.
_EXCHANGED = (
    ("left", "right"), ("l", "r"),
    ("links", "rechts"), ("linke", "rechte"), ("li", "re"),
    ("gauche", "droite"), ("gauche", "droit"),
    ("sx", "dx"), ("sin", "dx"), ("sin", "dex"), ("sin", "des"), ("sinistr", "destr"), ("sinister", "dexter"),
    ("izq", "der"), ("izquierd", "derech"), ("izd", "dch"), ("esq", "dir"), ("esquerd", "direit"),
    ("左", "右"),
)  # fmt: skip


def sided_structures(structures: Sequence[str]) -> list[str]:
    """Structures whose name says on which side they lie: LeftParotid, kidney_right, femur-l; and those of pairs."""
    paired = {name for pair in sided_pairs(structures) for name in pair}
    return [name for name in structures if name in paired or _says_a_side(name)]


def sided_pairs(structures: Sequence[str]) -> list[tuple[str, str]]:
    """Two names that are one but for a side, however it is written: lkid and rkid, rene_sx and rene_dx."""
    by_name = {name.lower(): name for name in structures if not _is_chamber(name)}
    found = ((name, by_name[other]) for low, name in by_name.items() for other in _exchanged(low) if other in by_name)
    return list(dict.fromkeys(found))


def _is_chamber(name: str) -> bool:
    return bool(_CHAMBER.match(name)) or any(_CHAMBER_WORD.fullmatch(word) for word in _WORDS.split(name))


def _says_a_side(name: str) -> bool:
    """Whether a whole word of the name is a side."""
    return not _CHAMBER.match(name) and any(_SIDE.fullmatch(word) for word in _WORDS.split(name))


def _exchanged(name: str) -> Iterator[str]:
    """A name with one of its lefts turned into a right."""
    for left, right in _EXCHANGED:
        for place in re.finditer(left, name):
            yield name[: place.start()] + right + name[place.end() :]


def decide_mirroring(structures: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], str]:
    """Left–right, unless structures have sides: other flips do not occur in scans whose axes are anatomical.

    ConfigError where a pair names no structure, or a structure that has a side is in no pair although there are some.
    """
    named = list(dict.fromkeys(name for pair in pairs for name in pair))
    for name in named:
        if name not in structures:
            raise ConfigError(f"plan.left_right_pairs names {name!r}; {did_you_mean(name, list(structures))}")
    sided = sided_structures(structures)
    if pairs:
        _require_all_in_pairs(sided, named)
        return (), "flipped left–right only with the structures' names exchanged (plan.left_right_pairs)"
    if sided:
        taken = [f"{left} and {right}" for left, right in sided_pairs(structures) if not _says_a_side(left)]
        why = f"; taken for a left and a right: {', '.join(taken)}" if taken else ""
        return (), f"none: {', '.join(sided)} would be taken for their other side (unless plan.left_right_pairs){why}"
    if unnamed := [name for name in structures if _NO_NAME.fullmatch(name)]:
        return (), f"none: {', '.join(unnamed)} have no names that say whether they have sides (plan.mirror_axes: [0])"
    return (0,), "left–right: no structure has a side; axes are anatomical, so that other flips do not occur"


def _require_all_in_pairs(sided: Sequence[str], named: Sequence[str]) -> None:
    """With pairs, images are flipped left–right: whatever has a side must then change its name."""
    if left_out := [name for name in sided if name not in named]:
        raise ConfigError(
            f"plan.left_right_pairs leaves out {', '.join(left_out)}: where it names pairs, images are flipped "
            "left–right, so that these would be learned on their other side; name the pairs of all structures that "
            "have a side, or none at all"
        )


def pinned_mirroring_reason(axes: tuple[int, ...], open_axes: tuple[int, ...], sided: Sequence[str]) -> str:
    if 0 in axes and sided:
        raise ConfigError(
            f"plan.mirror_axes: 0 flips left and right, so {', '.join(sided)} would be learned on their other side; "
            "leave 0 out, or name the pairs in plan.left_right_pairs (then both are exchanged)"
        )
    return f"pinned; open it would be {list(open_axes)}: each axis doubles the time of mirrored prediction, no other"
