"""Structures of a model for people and other programs: names, values, colours and codes."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

from pydantic import Field

from pipeline.base.strict_model import StrictModel
from pipeline.config.package import CodedConcept, LabelConfig

_GOLDEN_ANGLE = 137.508 / 360


TISSUE = CodedConcept(value="85756007", meaning="Tissue")
ANATOMICAL_STRUCTURE = CodedConcept(
    value="91723000", meaning="Anatomical Structure"
)  # as DICOM's context group 7150 has it


class Label(StrictModel):
    """One structure of a package."""

    name: str
    values: tuple[int, ...]
    """The label values that it consists of in a segmentation (one, unless it is a region)."""
    color: tuple[int, int, int] = Field(examples=[(230, 25, 75)])
    category: CodedConcept = TISSUE
    type: CodedConcept = TISSUE


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
