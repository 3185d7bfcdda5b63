"""What a layout leaves open about channels: their order, how many a 4D file holds, which are in Hounsfield units."""

from __future__ import annotations

from dataclasses import replace

from pipeline.base.errors import DataError
from pipeline.dataset.loaded_cases import Channel
from pipeline.io.grid_difference import grid_difference
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, some_of
from pipeline.layouts.init.label_map_survey import FileSurvey

UNNAMED = "image"
_LOOKED_AT, _AIR_HU = 3, -500.0
_GRIDS_LOOKED_AT = 5
_WITHOUT_ORDER = {"folders", "bids"}
"""Layouts whose channels are in no order but that of their names."""


def infer_channels(found: DatasetListing, census: FileSurvey) -> tuple[DatasetListing, list[str]]:
    """`found` with what the first readable cases show about its unnamed channels, and notes that say so.

    An unnamed single channel becomes as many as a 4D file holds; one whose values go down to air in Hounsfield units
    becomes CT. What cannot be trained on and holds another number of volumes (a film beside its frames) is left out.
    """
    readable = [case for case in found.cases if case.id not in census.broken]
    cases = ([case for case in readable if case.split == "training"] or readable)[:_LOOKED_AT]
    channels, notes = list(found.channels), []
    if not cases:
        return found, []
    header = read_image_header(cases[0].images[0])
    if [channel.name for channel in channels] == [UNNAMED] and header.channels > 1:
        holds = f"{cases[0].images[0].name} holds {header.channels}"
        if header.may_be_colours:
            notes.append(f"{holds} bytes a voxel, as colours do: not taken as channels, which `segpipe check` explains")
        else:
            channels = [Channel(name=f"channel_{i}") for i in range(header.channels)]
            notes.append(f"{holds} volumes: taken as {header.channels} channels")
    unnamed = [
        i for i, channel in enumerate(channels) if channel.name == UNNAMED or channel.name.startswith("channel_")
    ]
    lowest = [_lowest_values(case) for case in cases] if unnamed else []
    for i in unnamed:
        name = channels[i].name
        values = [row[i] for row in lowest if len(row) == len(channels)]
        if values and max(values) < _AIR_HU:
            channels[i] = Channel(name=name, modality="CT")
            notes.append(f"{name}: taken as CT, since its values go down to {min(values):.0f} (air is -1000 HU)")
        else:
            notes.append(f"{name}: taken as MR, so normalised image by image; if it is CT, say so in the manifest")
    found = replace(found, channels=tuple(channels))
    return _without_other_volumes(found, {case.id for case in readable}, notes), notes


def put_label_grid_channels_first(found: DatasetListing, census: FileSurvey) -> tuple[DatasetListing, list[str]]:
    """`found` with the channels first on whose grid label maps lie, since others are resampled onto the first one's.

    Only where no descriptor gives an order, and the first few cases agree.
    """
    count = len(found.channels)
    if found.layout not in _WITHOUT_ORDER or any(len(case.images) != count for case in found.cases):
        return found, []
    labelled = [case for case in found.cases if case.label and case.id not in census.broken][:_GRIDS_LOOKED_AT]
    fits = {tuple(_on_the_labels_grid(case)) for case in labelled}
    if len(fits) != 1 or all(first := next(iter(fits))) or not any(first):
        return found, []
    order = sorted(range(count), key=lambda i: not first[i])
    others = ", ".join(channel.name for channel, fit in zip(found.channels, first, strict=True) if not fit)
    note = f"{others}: not on the grid of the label maps; load.resample_channels: true brings it there"
    cases = tuple(replace(one, images=tuple(one.images[i] for i in order)) for one in found.cases)
    return replace(found, channels=tuple(found.channels[i] for i in order), cases=cases), [note]


def _on_the_labels_grid(case: ListedCase) -> list[bool]:
    if case.label is None:
        raise AssertionError("a labelled case has a label map")
    grid = read_image_header(case.label).grid
    return [not grid_difference(grid, read_image_header(path).grid) for path in case.images]


def _without_other_volumes(found: DatasetListing, readable: set[str], notes: list[str]) -> DatasetListing:
    """`found` without unlabelled single files that do not hold as many volumes as there are channels."""
    other = {
        case.id: case.images[0].name
        for case in found.cases
        if case.id in readable and case.label is None and len(case.images) == 1
        if read_image_header(case.images[0]).channels != len(found.channels)
    }
    if not other or len(other) == len(found.cases):
        return found
    notes.append(
        f"{some_of(other.values())}: not {len(found.channels)} volume(s) as the other images hold, and without a "
        "label; left out"
    )
    return replace(found, cases=tuple(case for case in found.cases if case.id not in other))


def _lowest_values(case: ListedCase) -> list[float]:
    try:
        return [float(channel.min()) for channel in read_image(case.images).array]
    except DataError:
        return []
