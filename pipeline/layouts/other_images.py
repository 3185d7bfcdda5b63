"""Images beside a case's channels that are none of them: films of its frames, label maps under names that say so little
that they pass for images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.base.errors import DataError
from pipeline.data.formats import read_header
from pipeline.layouts.by_content import MOST_VALUES, has_few_values
from pipeline.layouts.naming import Name

_LOOKED_AT = 3
Groups = Mapping[str, Sequence[Name]]


def without_other_images(images: Groups) -> tuple[Groups, list[str]]:
    """Images by case, without channels that are none in the first few cases with several images; and what was left out.

    A film holds several volumes where the case's other images hold one. A label map holds at most `MOST_VALUES` values;
    where all channels do, all stay.
    """
    volumes: dict[str, list[int]] = defaultdict(list)
    few: dict[str, list[bool]] = defaultdict(list)
    for group in [group for group in images.values() if len(group) > 1][:_LOOKED_AT]:
        for name in group:
            try:
                volumes[name.channel].append(read_header(name.path).channels)
            except DataError:
                continue  # `check` names it
            few[name.channel].append(has_few_values(name.path) is True)
    films = {channel for channel, counts in volumes.items() if min(counts) > 1}
    films = films if any(max(counts) == 1 for counts in volumes.values()) else set()
    labels = {channel for channel, found in few.items() if all(found)} - films
    labels = labels if few.keys() - films - labels else set()
    left_out = films | labels
    kept = {key: [name for name in group if name.channel not in left_out] for key, group in images.items()}
    notes = [f"{name}: holds several volumes, and other images of the case one; left out" for name in sorted(films)]
    notes += [
        f"{name}: holds at most {MOST_VALUES} values, as label maps do; left out of the images (if the network shall "
        "see it, name it with --image-files)"
        for name in sorted(labels)
    ]
    return {key: group for key, group in kept.items() if group}, notes
