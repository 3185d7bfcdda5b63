"""Images beside a case's channels that are none of them: films of its frames, label maps under names that say so little
that they pass for images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.io.read_image_header import read_image_header
from pipeline.layouts.dataset_listing import some_of
from pipeline.layouts.folders.file_names import Groups, Name
from pipeline.layouts.folders.label_maps_by_content import Content, content_of
from pipeline.parallel.threads import in_threads

_LOOKED_AT = 3


def drop_extra_images(images: Groups) -> tuple[Groups, list[str]]:
    """Images by case, without those that are none of its channels, and what was left out.

    A film holds several volumes where the case's other images hold one. A label map is known by its voxels, and as a
    channel: in the first few cases that have it. What most cases have as their only image is neither, and no case
    loses its last image.
    """
    several = {key: group for key, group in images.items() if len(group) > 1}
    by_channel: dict[str, list[Name]] = defaultdict(list)
    for group in several.values():
        for name in group:
            by_channel[name.channel].append(name)
    alone = [group[0].channel for group in images.values() if len(group) == 1]
    beside = {channel for channel, names in by_channel.items() if len(names) > alone.count(channel)}
    labels = {channel for channel in beside if _are_label_maps(by_channel[channel])}
    labels = labels if by_channel.keys() - labels else set()
    films = {name.path for name in _films([n for c in sorted(beside - labels) for n in by_channel[c]], several)}
    kept = {
        key: [name for name in group if name.channel not in labels and name.path not in films] or group
        for key, group in images.items()
    }
    left_out = {name.path: name for key, group in images.items() for name in group if name not in kept[key]}
    notes = [
        f"{_called(channel)}: label maps by their voxels, though not by their name; left out of the images (if the "
        "network shall see them, name all images with --image-files)"
        for channel in sorted(labels & {name.channel for name in left_out.values()})
    ]
    if films & left_out.keys():
        shown = some_of(path.name for path in sorted(films & left_out.keys()))
        notes.append(f"{shown}: several volumes, where other images of the case hold one; left out")
    return kept, notes


def _called(channel: str) -> str:
    return channel or "images without a channel's name"


def _are_label_maps(names: Sequence[Name]) -> bool:
    found = in_threads(content_of, [name.path for name in names[:_LOOKED_AT]], "reading")
    return Content.LABELS in found and Content.IMAGE not in found


def _films(names: Sequence[Name], several: Groups) -> list[Name]:
    """Those of several volumes in a case that has an image of one."""
    paths = [other.path for name in names for other in several[name.key]]
    volumes = dict(zip(paths, in_threads(_volumes, paths, "reading"), strict=True))
    return [
        name
        for name in names
        if volumes[name.path] > 1 and any(volumes[other.path] == 1 for other in several[name.key])
    ]


def _volumes(path: Path) -> int:
    """0 where the file cannot be read, which `check` says."""
    try:
        return read_image_header(path).channels
    except DataError:
        return 0
