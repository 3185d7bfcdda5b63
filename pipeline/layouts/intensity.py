"""Modalities that nobody declared: Hounsfield units show themselves by values far below zero."""

from __future__ import annotations

from dataclasses import replace

from pipeline.base.errors import DataError
from pipeline.data.cases import Channel
from pipeline.data.formats import read_image
from pipeline.layouts.census import Census
from pipeline.layouts.found import Found, FoundCase

_LOOKED_AT, _AIR_HU = 3, -500.0


def with_inferred_modality(found: Found, census: Census) -> tuple[Found, list[str]]:
    """`found` with unnamed channels (`image`, `channel_1`) set to CT where their values are Hounsfield units.

    Looks at the first readable cases; what is inferred is said in the returned notes.
    """
    cases = [case for case in found.cases if case.id not in census.broken][:_LOOKED_AT]
    unnamed = [i for i, channel in enumerate(found.channels) if _is_unnamed(channel)]
    if not unnamed or not cases:
        return found, []
    lowest = [_lowest_values(case) for case in cases]
    channels, notes = list(found.channels), []
    for i in unnamed:
        values = [row[i] for row in lowest if len(row) == len(channels)]
        if values and max(values) < _AIR_HU:
            channels[i] = Channel(name=channels[i].name, modality="CT")
            notes.append(
                f"{channels[i].name}: taken as CT, since its values go down to {min(values):.0f} (air is -1000 HU)"
            )
        else:
            notes.append(
                f"{channels[i].name}: taken as {channels[i].modality}, so normalised image by image; if it is CT, "
                "say so in the manifest"
            )
    return replace(found, channels=tuple(channels)), notes


def _is_unnamed(channel: Channel) -> bool:
    return channel.name == "image" or channel.name.startswith("channel_")


def _lowest_values(case: FoundCase) -> list[float]:
    try:
        return [float(channel.min()) for channel in read_image(case.images).array]
    except DataError:
        return []
