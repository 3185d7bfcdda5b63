"""BIDS: scans as `sub-01[/ses-1]/anat/sub-01_T1w.nii.gz`, label maps under `derivatives/` as `_dseg` or `_mask`."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.base.errors import DataError, Problem
from pipeline.base.files import read_json
from pipeline.dataset.cases_json import Channel
from pipeline.io.grid_difference import grid_difference
from pipeline.io.read_image import read_header
from pipeline.layouts.dataset_listing import (
    DatasetListing,
    ListedCase,
    image_files,
    modality_of,
    refuse_shared_ids,
    some_of,
    stem,
    table_text,
    without_personal,
)
from pipeline.layouts.folders.file_names import read_name
from pipeline.layouts.label_names import LabelNames

_NO_VOLUMES = {"func", "fmap", "perf", "meg", "eeg", "ieeg", "beh", "micr", "nirs", "motion"}
_DATA_TYPES = {"anat", "dwi", "pet", "ct", *_NO_VOLUMES}
_NO_IMAGES = {"sbref", "epi", "physio"}
_LOOKED_AT = 5
_LABELS = {"dseg", "mask", "msk"}
_OF_DERIVATIVES = {"space", "desc", "label", "seg", "atlas", "res", "den", "hemi"}
_OF_A_CASE = {"sub", "ses", "run"}
_OF_A_STRUCTURE = {"label", "hemi"}


@dataclass(frozen=True)
class Scan:
    """A BIDS file name: its entities (`sub-01` as ("sub", "01")) and its suffix (T1w, dseg, ...)."""

    path: Path
    entities: tuple[tuple[str, str], ...]
    suffix: str

    def key(self, whole: bool) -> str:
        """What is common to a case's files: subject, session and run; all entities of the scan where `whole`."""
        return "_".join(f"{name}-{value}" for name, value in self.entities if _names_a_case(name, whole))

    def entity(self, name: str) -> str:
        return dict(self.entities).get(name, "")

    @property
    def structure(self) -> str:
        """What a mask is of: `HC`, `HC_L` of one hemisphere."""
        return "_".join(filter(None, (self.entity("label"), self.entity("hemi")))) or "structure"


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


def is_bids(folder: Path) -> bool:
    """True where scans lie as BIDS has them: `sub-01/anat/sub-01_T1w.nii.gz`, with or without a session's folder.

    Other folders than those of BIDS (`sub-01/images`) are so where the data set says itself that it is BIDS.
    """
    declared = (folder / "dataset_description.json").is_file()
    return any(
        _scan(path) is not None
        and (path.parent.name in _DATA_TYPES or (declared and not path.parent.name.startswith(("sub-", "ses-"))))
        for subject in folder.glob("sub-*")
        if subject.is_dir()
        for path in image_files(subject)
    )


def read(folder: Path) -> DatasetListing:
    """Reads scans, the derivative that labels the most cases, its `dseg.tsv`, and participants.tsv as extra columns.

    Input channels are the suffixes that every labelled case has. Raises a DataError where no scan is found.
    """
    named = [scan for path in image_files(folder) if (scan := _scan(path)) is not None]
    scans = _with_diffusion([s for s in named if _is_raw(folder, s.path) and s.suffix not in _LABELS], named)
    if not scans:
        raise DataError(f"{folder}: no BIDS scans such as sub-01/anat/sub-01_T1w.nii.gz")
    notes: set[str] = set()
    problems: list[Problem] = []
    whole = max(Counter((scan.key(False), scan.suffix) for scan in scans).values()) > 1
    images: dict[str, dict[str, Path]] = defaultdict(dict)
    for scan in scans:
        refuse_shared_ids({scan.key(whole): [p for p in (images[scan.key(whole)].get(scan.suffix), scan.path) if p]})
        images[scan.key(whole)][scan.suffix] = scan.path
    labelled = _labelled(folder, [scan for scan in named if scan.suffix in _LABELS], whole, notes, problems)
    channels = _channels(images, labelled.cases, notes)
    problems += [
        Problem(key, "has a label map and no scan; left out") for key in sorted(labelled.cases) if key not in images
    ]
    problems += [] if labelled.cases else _label_maps_unlike_bids(folder, [scan.path for scan in scans])
    people = _participants(folder, notes)
    cases = [
        ListedCase(
            id=key,
            images=tuple(by_suffix[channel] for channel in channels),
            label=labelled.maps.get(key),
            masks=labelled.masks.get(key, {}),
            split="training" if key in labelled.cases else "testing",
            subject=key.split("_")[0],
            extra=people.get(key.split("_")[0], {}),
        )
        for key, by_suffix in sorted(images.items())
        if _complete(key, by_suffix, channels, problems)
    ]
    description = (
        read_json(folder / "dataset_description.json") if (folder / "dataset_description.json").is_file() else {}
    )
    return DatasetListing(
        layout="bids",
        folder=folder,
        name=str(description.get("Name") or folder.name),
        channels=tuple(Channel(name=name, modality=modality_of(name)) for name in channels),
        cases=tuple(cases),
        labelling=labelled.labelling,
        labelling_is_lookup=True,
        licence=str(description.get("License", "")),
        source=str(description.get("DatasetDOI", "")),
        notes=tuple(sorted(notes)),
        problems=tuple(problems),
    )


def _label_maps_unlike_bids(folder: Path, scans: Collection[Path]) -> list[Problem]:
    """Files that are label maps by their names, though not by BIDS's, where no other is found."""
    others = (path for path in image_files(folder) if path not in scans)
    found = [str(path.relative_to(folder)) for path in others if read_name(folder, path, suffixes=False).is_label]
    if not found:
        return []
    cure = "say which are meant with --label-files and --image-files"
    return [
        Problem("label maps", f"none is called as BIDS does it, but perhaps these are some: {some_of(found)}; {cure}")
    ]


def _is_raw(folder: Path, path: Path) -> bool:
    parts = path.relative_to(folder).parts
    return parts[0].startswith("sub-") and not _NO_VOLUMES & set(parts)


def _with_diffusion(scans: Sequence[Scan], named: Sequence[Scan]) -> list[Scan]:
    """Scans without those of `dwi/`, unless label maps lie on no other scan's grid: then with its single volumes."""
    others = [scan for scan in scans if "dwi" not in scan.path.parts]
    maps = [scan for scan in named if scan.suffix in _LABELS]
    fit = [
        _on_one_grid(label.path, [scan.path for scan in others if scan.key(False) == label.key(False)])
        for label in maps[:_LOOKED_AT]
    ]
    if others and (not maps or any(fit)):
        return others
    return [scan for scan in scans if scan in others or (scan.suffix not in _NO_IMAGES and _is_one_volume(scan.path))]


def _on_one_grid(label: Path, images: Sequence[Path]) -> bool:
    """True too where a file cannot be read: it is named later."""
    try:
        grid = read_header(label).grid
        return any(grid_difference(grid, read_header(image).grid) is None for image in images)
    except DataError:
        return True


def _is_one_volume(path: Path) -> bool:
    try:
        return read_header(path).channels == 1
    except DataError:
        return False


def _scan(path: Path) -> Scan | None:
    """The parsed name, or None where it is not one of BIDS."""
    *entities, suffix = stem(path).split("_")
    pairs = tuple((name, value) for name, dash, value in (entity.partition("-") for entity in entities) if dash)
    if len(pairs) != len(entities) or not pairs or pairs[0][0] != "sub" or not suffix:
        return None
    return Scan(path, pairs, suffix)


def _channels(images: Mapping[str, Mapping[str, Path]], labelled: set[str], notes: set[str]) -> list[str]:
    """The suffixes that every labelled case has (every case, where none is labelled)."""
    relevant = [set(by_suffix) for key, by_suffix in images.items() if key in labelled] or [
        set(s) for s in images.values()
    ]
    common, seen = set.intersection(*relevant), set.union(*relevant)
    if not common:
        raise DataError(f"no kind of scan is there for every labelled case; found {', '.join(sorted(seen))}")
    if others := sorted(seen - common):
        notes.add(f"{', '.join(others)}: not there for every labelled case, so not a channel")
    notes.add(f"channels by BIDS suffix: {', '.join(sorted(common))}")
    return sorted(common)


def _complete(key: str, by_suffix: Mapping[str, Path], channels: Sequence[str], problems: list[Problem]) -> bool:
    missing = [channel for channel in channels if channel not in by_suffix]
    if missing:
        problems.append(Problem(key, f"has no {', '.join(missing)}; left out"))
    return not missing


def _names_a_case(entity: str, whole: bool) -> bool:
    return entity not in _OF_DERIVATIVES if whole else entity in _OF_A_CASE


def _labelled(folder: Path, maps: Sequence[Scan], whole: bool, notes: set[str], problems: list[Problem]) -> Labelled:
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
    return Labelled(single, {}, _lookup(folder / chosen.pipeline, next(iter(single.values()))))


def _by_kind(folder: Path, maps: Sequence[Scan], whole: bool) -> dict[Kind, list[Scan]]:
    """Label maps that belong together.

    What scans are called too (acq, ce, rec) tells kinds apart only where one case has several of them: else it may be
    one kind, drawn on scans of different protocols.
    """
    groups = _grouped(folder, maps, _OF_DERIVATIVES - _OF_A_STRUCTURE)
    result = dict[Kind, list[Scan]]()
    for kind, scans in groups.items():
        if len({(scan.key(whole), scan.structure) for scan in scans}) == len(scans):
            result[kind] = scans
        else:
            others = {name for scan in scans for name, _ in scan.entities if not _names_a_case(name, whole)}
            result |= _grouped(folder, scans, others - _OF_A_STRUCTURE)
    return result


def _grouped(folder: Path, maps: Sequence[Scan], names: set[str]) -> dict[Kind, list[Scan]]:
    """By pipeline folder, suffix and the entities of these names."""
    groups: dict[Kind, list[Scan]] = defaultdict(list)
    for scan in maps:
        parts = scan.path.relative_to(folder).parts
        # A subject's folder right below derivatives/ is no pipeline.
        above = [part for part in parts[:2] if not part.startswith("sub-")]
        pipeline = "/".join(above) if parts[0] == "derivatives" else "beside the scans"
        entities = tuple(sorted(pair for pair in scan.entities if pair[0] in names))
        groups[Kind(pipeline, scan.suffix, entities)].append(scan)
    return dict(groups)


def _by_case(folder: Path, maps: Sequence[Scan], whole: bool, problems: list[Problem]) -> dict[str, dict[str, Path]]:
    """Case to structure to file; a second file of one name is left out by name."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for scan in maps:
        used = found[scan.key(whole)].setdefault(scan.structure, scan.path)
        if used != scan.path:
            other, first = (path.relative_to(folder) for path in (scan.path, used))
            problems.append(Problem(scan.key(whole), f"{other} is a label map of the same kind as {first}; left out"))
    return dict(found)


def _lookup(pipeline: Path, label: Path) -> LabelNames | None:
    """Names from the label map's own .tsv or from the pipeline's `*dseg.tsv` (columns index and name)."""
    places = [label.with_name(stem(label) + ".tsv"), *sorted(pipeline.glob("*dseg.tsv"))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    structures: dict[str, tuple[int, ...]] = {}
    for row in _tsv(path):
        index, name = row.get("index", ""), row.get("name", "")
        if not index.isdigit() or not name:
            raise DataError(
                f"{path}: a row has index {index!r} and name {name!r}; both are needed, index a whole number"
            )
        if int(index) != 0:
            structures[name] = (*structures.get(name, ()), int(index))
    return LabelNames(structures) if structures else None


def _participants(folder: Path, notes: set[str]) -> dict[str, dict[str, str]]:
    path = folder / "participants.tsv"
    if not path.is_file():
        return {}
    people = {}
    for row in _tsv(path):
        subject = row.pop("participant_id", "")
        values = {key: value for key, value in row.items() if value != "n/a"}
        people[subject] = without_personal(values, notes)
    return people


def _tsv(path: Path) -> list[dict[str, str]]:
    lines = table_text(path)[0].splitlines()
    return [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(lines, delimiter="\t")]
