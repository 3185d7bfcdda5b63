"""Which layout a folder is in, and its reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError, did_you_mean
from pipeline.base.files import read_json
from pipeline.layouts.dataset_listing import DatasetListing
from pipeline.layouts.folders import read_folders
from pipeline.layouts.folders.split_images_and_labels import NO_PATTERNS, FilePatterns
from pipeline.layouts.formats import bids, csv_table, dicom_folders, msd, nnunet
from pipeline.layouts.list_files import image_files

READERS: dict[str, Callable[[Path], DatasetListing]] = {
    "msd": msd.read,
    "nnunet": nnunet.read,
    "csv": csv_table.read,
    "folders": read_folders.read,
    "bids": bids.read,
    "dicom": dicom_folders.read,
}


def read_layout(place: Path, layout: str = "auto", chosen: FilePatterns = NO_PATTERNS) -> DatasetListing:
    """Reads `place` (a folder, a dataset.json or a table) in the given layout, or in the one that it shows.

    Where label maps or images are chosen, plain folders. Raises a ConfigError for an unknown layout, or one that
    declares itself which files are what, and a DataError where there is nothing to read.
    """
    if layout != "auto" and layout not in READERS:
        raise ConfigError(f"--format {layout!r} is unknown; {did_you_mean(layout, ['auto', *READERS])}")
    if not place.exists():
        raise DataError(f"{place}: there is no such folder or file")
    place = Path(os.path.normpath(place.absolute()))
    if chosen:
        if layout not in ("auto", "folders") or not place.is_dir():
            raise ConfigError("--label-files and --image-files are for plain folders; leave them out, or --format")
        return read_folders.read(place, chosen)
    kind, where = detect(place) if layout == "auto" else (layout, _entry(place, layout))
    return READERS[kind](where)


def detect(place: Path) -> tuple[str, Path]:
    """The layout's name, and the folder (or table) its reader starts from. What is declared wins over what is seen."""
    if place.is_file():
        if csv_table.is_table(place):
            return "csv", place
        if place.name != "dataset.json":
            raise DataError(f"{place}: is neither a dataset.json nor a .csv/.tsv with an image column; name a folder")
        place = place.parent
    if (descriptor := _descriptor(place)) is not None:
        return _kind_of(descriptor), descriptor.parent
    if bids.is_bids(place):
        return "bids", place
    if (found := _table(place)) is not None:
        return "csv", found
    if image_files(place):
        return "folders", place
    if dicom_folders.has_series(place):
        return "dicom", place
    raise DataError(
        f"{place}: no dataset.json, table, NIfTI, NRRD, MetaImage, MGZ or DICOM file in it; "
        "name the folder that holds the scans"
    )


def _entry(place: Path, layout: str) -> Path:
    """Where the reader of a layout that was named by the user starts."""
    if layout in {"msd", "nnunet"}:
        descriptor = place if place.is_file() else _descriptor(place)
        if descriptor is None:
            raise DataError(f"{place}: has no dataset.json, which --format {layout} needs")
        if descriptor.name != "dataset.json":
            raise DataError(f"{descriptor}: --format {layout} reads a dataset.json; give it that name")
        return descriptor.parent
    if layout == "csv":
        found = place if place.is_file() else _table(place)
        if found is None:
            raise DataError(f"{place}: has no single .csv or .tsv with an image column; name the file itself")
        return found
    return place


def _descriptor(folder: Path) -> Path | None:
    """dataset.json in the folder, or in its only subfolder that has one (an archive unpacked into a folder)."""
    if (folder / "dataset.json").is_file():
        return folder / "dataset.json"
    below = [path for path in folder.glob("*/dataset.json") if not path.parent.name.startswith((".", "__MACOSX"))]
    return below[0] if len(below) == 1 else None


def _kind_of(descriptor: Path) -> str:
    values = read_json(descriptor)
    if not isinstance(values, dict):
        raise DataError(f"{descriptor}: holds a {type(values).__name__}; a descriptor is an object with keys")
    return "nnunet" if {"channel_names", "file_ending", "dataset"} & set(values) else "msd"


def _table(folder: Path) -> Path | None:
    """The only table of cases in the folder; a DataError where there are several, perhaps parts of one data set."""
    tables = [
        path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and csv_table.lists_images(path)
    ]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise DataError(
            f"{folder}: {names} all list images; join them into one table with a column 'split', or name one of them"
        )
    return tables[0] if tables else None
