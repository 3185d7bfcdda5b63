"""BIDS: scans as `sub-01[/ses-1]/anat/sub-01_T1w.nii.gz`, label maps under `derivatives/` as `_dseg` or `_mask`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import DataError, Problem
from pipeline.base.files import read_json
from pipeline.dataset.loaded_cases import Channel
from pipeline.io.read_image_header import read_image_header
from pipeline.layouts.case_ids import refuse_shared_ids
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, some_of
from pipeline.layouts.folders.file_names import read_name
from pipeline.layouts.formats.bids_label_maps import find_label_maps, on_one_grid
from pipeline.layouts.formats.bids_names import BidsScan, parse_scan
from pipeline.layouts.formats.bids_tables import read_participants
from pipeline.layouts.list_files import image_files

_NO_VOLUMES = {"func", "fmap", "perf", "meg", "eeg", "ieeg", "beh", "micr", "nirs", "motion"}
_DATA_TYPES = {"anat", "dwi", "pet", "ct", *_NO_VOLUMES}
_NO_IMAGES = {"sbref", "epi", "physio"}
_LOOKED_AT = 5
_LABELS = {"dseg", "mask", "msk"}


def is_bids(folder: Path) -> bool:
    """True where scans lie as BIDS has them: `sub-01/anat/sub-01_T1w.nii.gz`, with or without a session's folder.

    Other folders than those of BIDS (`sub-01/images`) are so where the data set says itself that it is BIDS.
    """
    declared = (folder / "dataset_description.json").is_file()
    return any(
        parse_scan(path) is not None
        and (path.parent.name in _DATA_TYPES or (declared and not path.parent.name.startswith(("sub-", "ses-"))))
        for subject in folder.glob("sub-*")
        if subject.is_dir()
        for path in image_files(subject)
    )


def read(folder: Path) -> DatasetListing:
    """Reads scans, the derivative that labels the most cases, its `dseg.tsv`, and participants.tsv as extra columns.

    Input channels are the suffixes that every labelled case has. Raises a DataError where no scan is found.
    """
    named = [scan for path in image_files(folder) if (scan := parse_scan(path)) is not None]
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
    labelled = find_label_maps(folder, [scan for scan in named if scan.suffix in _LABELS], whole, notes, problems)
    channels = _channels(images, labelled.cases, notes)
    problems += [
        Problem(key, "has a label map and no scan; left out") for key in sorted(labelled.cases) if key not in images
    ]
    problems += [] if labelled.cases else _label_maps_unlike_bids(folder, [scan.path for scan in scans])
    people = read_participants(folder, notes)
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


def _with_diffusion(scans: Sequence[BidsScan], named: Sequence[BidsScan]) -> list[BidsScan]:
    """Scans without those of `dwi/`, unless label maps lie on no other scan's grid: then with its single volumes."""
    others = [scan for scan in scans if "dwi" not in scan.path.parts]
    maps = [scan for scan in named if scan.suffix in _LABELS]
    fit = [
        on_one_grid(label.path, [scan.path for scan in others if scan.key(False) == label.key(False)])
        for label in maps[:_LOOKED_AT]
    ]
    if others and (not maps or any(fit)):
        return others
    return [scan for scan in scans if scan in others or (scan.suffix not in _NO_IMAGES and _is_one_volume(scan.path))]


def _is_one_volume(path: Path) -> bool:
    try:
        return read_image_header(path).channels == 1
    except DataError:
        return False


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
