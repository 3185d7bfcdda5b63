"""Label files of a package: labels.json, and those of ITK-SNAP and 3D Slicer."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.files import read_json, write_json, write_text
from pipeline.packaging.label_metadata import Label


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
