"""Label maps of BIDS derivatives: those that belong together, and the kind that labels the most cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.base.errors import DataError, Problem
from pipeline.io.grid_difference import grid_difference
from pipeline.io.read_image_header import read_image_header
from pipeline.layouts.formats.bids_names import OF_DERIVATIVES, BidsScan, names_a_case
from pipeline.layouts.formats.bids_tables import read_label_table
from pipeline.layouts.label_names import LabelNames

_OF_A_STRUCTURE = {"label", "hemi"}


class Kind(NamedTuple):
    """What label maps that belong together have in common: where they lie, suffix, entities that name no case."""

    pipeline: str
    suffix: str
    entities: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        entities = [f"{name}-{value}" for name, value in self.entities]
        return f"{self.pipeline} {'_'.join(['*', *entities, self.suffix])}"


@dataclass(frozen=True)
class Labelled:
    """Case to its label map, or to a mask per structure; and what values mean, where it is told."""

    maps: Mapping[str, Path]
    masks: Mapping[str, Mapping[str, Path]]
    labelling: LabelNames | None

    @property
    def cases(self) -> set[str]:
        return {*self.maps, *self.masks}


def find_label_maps(
    folder: Path, maps: Sequence[BidsScan], whole: bool, notes: set[str], problems: list[Problem]
) -> Labelled:
    """The label maps or masks of the kind that has the most cases, and their names."""
    groups = _by_kind(folder, maps, whole)
    if not groups:
        return Labelled({}, {}, None)
    cases = {kind: len({scan.key(whole) for scan in scans}) for kind, scans in groups.items()}
    chosen = max(groups, key=lambda kind: (cases[kind], kind.suffix == "dseg", kind))
    notes.add(f"label maps: {chosen} ({cases[chosen]} cases)")
    notes.update(f"not used: {kind} ({cases[kind]} cases)" for kind in groups if kind != chosen)
    found = _by_case(folder, groups[chosen], whole, problems)
    structures = {name for own in found.values() for name in own}
    if len(structures) > 1:
        return Labelled({}, found, None)
    single = {case: path for case, own in found.items() for path in own.values()}
    if chosen.suffix == "mask":
        return Labelled(single, {}, LabelNames({structures.pop(): (1,)}))
    return Labelled(single, {}, read_label_table(folder / chosen.pipeline, next(iter(single.values()))))


def _by_kind(folder: Path, maps: Sequence[BidsScan], whole: bool) -> dict[Kind, list[BidsScan]]:
    """Label maps that belong together.

    What scans are called too (acq, ce, rec) tells kinds apart only where one case has several of them: else it may be
    one kind, drawn on scans of different protocols.
    """
    groups = _grouped(folder, maps, OF_DERIVATIVES - _OF_A_STRUCTURE)
    result = dict[Kind, list[BidsScan]]()
    for kind, scans in groups.items():
        if len({(scan.key(whole), scan.structure) for scan in scans}) == len(scans):
            result[kind] = scans
        else:
            others = {name for scan in scans for name, _ in scan.entities if not names_a_case(name, whole)}
            result |= _grouped(folder, scans, others - _OF_A_STRUCTURE)
    return result


def _grouped(folder: Path, maps: Sequence[BidsScan], names: set[str]) -> dict[Kind, list[BidsScan]]:
    """By pipeline folder, suffix and the entities of these names."""
    groups: dict[Kind, list[BidsScan]] = defaultdict(list)
    for scan in maps:
        parts = scan.path.relative_to(folder).parts
        # A subject's folder right below derivatives/ is no pipeline.
        above = [part for part in parts[:2] if not part.startswith("sub-")]
        pipeline = "/".join(above) if parts[0] == "derivatives" else "beside the scans"
        entities = tuple(sorted(pair for pair in scan.entities if pair[0] in names))
        groups[Kind(pipeline, scan.suffix, entities)].append(scan)
    return dict(groups)


def _by_case(
    folder: Path, maps: Sequence[BidsScan], whole: bool, problems: list[Problem]
) -> dict[str, dict[str, Path]]:
    """Case to structure to file; a second file of one name is left out by name."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for scan in maps:
        used = found[scan.key(whole)].setdefault(scan.structure, scan.path)
        if used != scan.path:
            other, first = (path.relative_to(folder) for path in (scan.path, used))
            problems.append(Problem(scan.key(whole), f"{other} is a label map of the same kind as {first}; left out"))
    return dict(found)


def on_one_grid(label: Path, images: Sequence[Path]) -> bool:
    """True too where a file cannot be read: it is named later."""
    try:
        grid = read_image_header(label).grid
        return any(grid_difference(grid, read_image_header(image).grid) is None for image in images)
    except DataError:
        return True
