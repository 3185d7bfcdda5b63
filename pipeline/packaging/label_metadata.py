"""The structures of a model for people and other programs: names, values, colours, codes, and label files."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from pipeline.base.files import read_json, write_json, write_text
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


def write_labels(folder: Path, labels: tuple[Label, ...]) -> None:
    """Writes `labels.json` and, for viewers, `labels/itksnap.txt` and `labels/slicer.ctbl`."""
    write_json(folder / "labels.json", {"structures": [label.model_dump(mode="json") for label in labels]})
    write_text(folder / "labels" / "itksnap.txt", itksnap_labels(labels))
    write_text(folder / "labels" / "slicer.ctbl", slicer_colors(labels))


def read_labels(folder: Path) -> tuple[Label, ...]:
    """The labels of a package."""
    return tuple(Label.from_record(entry) for entry in read_json(folder / "labels.json")["structures"])


def itksnap_labels(labels: tuple[Label, ...]) -> str:
    """ITK-SNAP's label description file: index, red, green, blue, opacity, visible, mesh, name."""
    lines = ["# ITK-SNAP Label Description File", '    0     0    0    0        0  0  0    "Clear Label"']
    for value, (name, (red, green, blue)) in _by_value(labels).items():
        lines.append(f'{value:5d}   {red:3d}  {green:3d}  {blue:3d}        1  1  1    "{name}"')
    return "\n".join(lines) + "\n"


def slicer_colors(labels: tuple[Label, ...]) -> str:
    """3D Slicer's colour table: index, name without spaces, red, green, blue, alpha."""
    lines = ["# Color table file", "0 Background 0 0 0 0"]
    for value, (name, (red, green, blue)) in _by_value(labels).items():
        lines.append(f"{value} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def _by_value(labels: tuple[Label, ...]) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Label value to name and colour; a value that several regions share is named after all, coloured as the last."""
    table: dict[int, tuple[str, tuple[int, int, int]]] = {}
    for label in labels:
        for value in label.values:
            name = f"{table[value][0]}+{label.name}" if value in table else label.name
            table[value] = (name, label.color)
    return dict(sorted(table.items()))


def _distinct_color(index: int) -> tuple[int, int, int]:
    """Colours that differ from their neighbours however many there are (hue turns by the golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN_ANGLE) % 1.0, 0.75, 0.95 - 0.2 * (index % 3))
    return round(255 * red), round(255 * green), round(255 * blue)
