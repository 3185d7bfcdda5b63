"""Files paired by the beginnings of their names: what stands behind them are channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.layouts.folders.file_names import Name, beginnings_of
from pipeline.layouts.folders.name_vocabulary import is_side_or_time

_CONTRAST = {"pre", "post"}
"""Before and after contrast medium, as channels; else before and after something."""

_MOST_CHANNELS = 8
"""Images of one label map, where they are known by their beginning alone."""


def pair_by_prefix(names: Sequence[Name]) -> list[Name]:
    """`c1_venous` and `c1_arterial` as channels of `c1_mask`, where every label map has images that begin like it.

    None where what follows only counts, or is a side or a time, or one label map has many images: these are cases.
    """
    keys = [name.key for name in names if name.is_label]
    labels = set(keys)
    beginning = {
        name.path: next((key for key in beginnings_of(name.key) if key in labels), "")
        for name in names
        if not name.is_label
    }
    rests = {name.key[len(label) + 1 :] for name in names if (label := beginning.get(name.path))}
    most = max(Counter(label for label in beginning.values() if label).values(), default=0)
    if len(labels) < len(keys) or labels - set(beginning.values()) or most > _MOST_CHANNELS:
        return []
    if all(rest.isdigit() or (is_side_or_time(rest) and rest.lower() not in _CONTRAST) for rest in rests):
        return []
    matched = []
    for name in names:
        key = beginning.get(name.path) or _without_ending(name.key, rests)
        if name.is_label or key == name.key:
            matched.append(name)
            continue
        shared_id = name.shared_id[: len(name.shared_id) - len(name.key) + len(key)]
        rest = "_".join(filter(None, (name.key[len(key) + 1 :], name.channel)))
        matched.append(replace(name, key=key, channel=rest, shared_id=shared_id))
    return matched


def _without_ending(key: str, rests: Collection[str]) -> str:
    """The case of an image without a label map, whose name ends like those of images with one."""
    ending = max((rest for rest in rests if key.endswith(f"_{rest}")), key=len, default="")
    return key[: -len(ending) - 1] if ending else key
