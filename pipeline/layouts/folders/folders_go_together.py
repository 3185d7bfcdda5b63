"""Whether a folder of images and one of label maps belong to the same session, told by their paths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from pipeline.layouts.folders.file_names import Name
from pipeline.layouts.folders.name_vocabulary import compatible_scan_tokens, is_split_name

_COUNTING_END = re.compile(r"\d+$|(?<=[a-z_-])[A-Z]$")


def folders_go_together(names: Sequence[Name]) -> bool:
    """Whether the label maps of each folder's images lie in one folder, of the same time, side and part of the data.

    Several may hold a structure or a rater each.
    """
    labels = {(name.key.rsplit("/", 1)[-1], name.channel): name for name in names if name.is_label}
    homes: dict[str, set[str]] = defaultdict(set)
    for image in names:
        key = image.key.rsplit("/", 1)[-1]
        label = labels.get((key, image.channel)) or labels.get((key, ""))
        if image.is_label or label is None:
            continue
        homes[image.place].add("/".join(part for part in label.place.split("/") if not is_split_name(part)))
        if not same_session(image, label):
            return False
    return all(len(places) == 1 for places in homes.values())


def same_session(image: Name, label: Name) -> bool:
    """False for `train/images/1` and `test/labels/1`, `baseline/anna` and `followup/anna`, `p1_left` and `p1_right`."""
    if image.above is not None and label.above is not None and image.above != label.above:
        return False
    places = [name.place.split("/") for name in (image, label)]
    if max(map(len, places)) > 1 and any(_are_siblings(here, there) for here in places[0] for there in places[1]):
        return False
    return compatible_scan_tokens(image.place, label.place) and compatible_scan_tokens(image.id, label.id)


def _are_siblings(here: str, there: str) -> bool:
    """True for `site1` and `site2`, `siteA` and `siteB`."""
    here_base, there_base = (_COUNTING_END.sub("", part) for part in (here, there))
    return here != there and here_base == there_base != ""
