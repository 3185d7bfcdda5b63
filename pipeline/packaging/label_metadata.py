"""Structures of a model for people and other programs: names, values, colours and codes."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

from pydantic import Field

from pipeline.base.strict_model import StrictModel

_GOLDEN_ANGLE = 137.508 / 360


class Code(StrictModel):
    """A coded concept, for instance SCT 10200004 "Liver"."""

    value: str
    scheme: str = "SCT"
    """Designator of the coding scheme; SCT is SNOMED CT."""
    meaning: str


TISSUE = Code(value="85756007", meaning="Tissue")
ANATOMICAL_STRUCTURE = Code(value="91723000", meaning="Anatomical Structure")  # as DICOM's context group 7150 has it


class LabelConfig(StrictModel):
    """How one structure is shown and coded; what is left out gets a colour by its place and the code for tissue."""

    color: tuple[int, int, int] | None = None
    """Red, green, blue, 0 to 255."""
    category: Code | None = None
    """SNOMED CT category for DICOM-SEG (default: Tissue, or Anatomical structure where a type is given)."""
    type: Code | None = None
    """SNOMED CT concept for DICOM-SEG, for instance {value: "10200004", meaning: Liver}."""


class Label(StrictModel):
    """One structure of a package."""

    name: str
    values: tuple[int, ...]
    """The label values that it consists of in a segmentation (one, unless it is a region)."""
    color: tuple[int, int, int] = Field(examples=[(230, 25, 75)])
    category: Code = TISSUE
    type: Code = TISSUE


def make_labels(structures: Mapping[str, tuple[int, ...]], configured: Mapping[str, LabelConfig]) -> tuple[Label, ...]:
    """The labels of `structures` in output order, with what is configured and defaults for the rest."""
    labels = []
    for index, (name, values) in enumerate(structures.items()):
        given = configured.get(name, LabelConfig())
        category = given.category or (ANATOMICAL_STRUCTURE if given.type else TISSUE)
        color = given.color or _distinct_color(index)
        labels.append(Label(name=name, values=values, color=color, category=category, type=given.type or TISSUE))
    return tuple(labels)


def _distinct_color(index: int) -> tuple[int, int, int]:
    """Colours that differ from their neighbours however many there are (hue turns by the golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN_ANGLE) % 1.0, 0.75, 0.95 - 0.2 * (index % 3))
    return round(255 * red), round(255 * green), round(255 * blue)
