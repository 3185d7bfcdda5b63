"""Series of one person: channels of one case, or cases of their own where each has a label map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.folders.file_names import Groups, Name, beginnings_of
from pipeline.layouts.folders.name_vocabulary import is_side_or_time


def split_labelled_channels(names: list[Name]) -> list[Name]:
    """`names`, where each channel of a scan has a label map of its own, as cases of one subject (`1_t1`, `1_t2`)."""
    keys = [name.key for name in names if name.is_label]
    labels, images = ({(name.key, name.channel) for name in names if name.is_label == kind} for kind in (True, False))
    whose = {name.key: name.shared_id for name in names if name.channel}
    longer = any(not whose.keys().isdisjoint(beginnings_of(key)) for key in keys)
    if (len(set(keys)) == len(keys) and not longer) or len(labels) < len(keys) or not labels <= images:
        return names
    return [as_case(name, whose) for name in names]


def with_more_channels(names: Sequence[Name], labels: Collection[str]) -> list[Name]:
    """`names` with what lies beside channels of known words as channels too: `p1_C0` and `p1_DE` beside `p1_T2`.

    labels: the keys of the cases that have label maps.
    """
    spoken = {name.key for name in names if not name.is_label and name.channel}.intersection(labels)
    rests: dict[Path, tuple[str, str]] = {}
    for name in names:
        beginning = next((key for key in beginnings_of(name.key) if key in spoken), "")
        if beginning and not name.is_label and name.key not in labels:
            rests[name.path] = beginning, "_".join(filter(None, (name.key[len(beginning) + 1 :], name.channel)))
    counts = Counter(rest for _, rest in rests.values())
    more = {
        path: told
        for path, told in rests.items()
        if 2 * counts[told[1]] >= len(labels) and not is_side_or_time(told[1]) and not told[1].isdigit()
    }
    whose = {name.key: name.shared_id for name in names if not name.is_label and name.key in spoken}
    return [
        replace(name, key=more[name.path][0], channel=more[name.path][1], shared_id=whose[more[name.path][0]])
        if name.path in more
        else name
        for name in names
    ]


def as_case(name: Name, whose: Mapping[str, str]) -> Name:
    """A name whose channel is part of the case. whose: key to subject."""
    subject = next((key for key in (name.key, *beginnings_of(name.key)) if key in whose), "")
    key = "_".join(filter(None, (name.key, name.channel)))
    return replace(name, key=key, channel="", shared_id=name.id, subject=whose.get(subject, ""))


def labelled(names: Sequence[Name]) -> set[str]:
    """The keys of label maps."""
    return {name.key for name in names if name.is_label}


def common_channels(images: Groups, trained: Iterable[str]) -> list[str]:
    """The channels that at least half of the cases `trained` on have; [''] where no case has several images.

    Where there is no such channel, or no case has them all, those that half of the cases with several images have.
    """
    channels = {key: {name.channel for name in group} for key, group in images.items()}
    several = [own for own in channels.values() if len(own) > 1]
    if not several:
        return [""]
    for counted in ([channels[key] for key in trained], several):
        counts = Counter(channel for own in counted for channel in own)
        common = {channel for channel, count in counts.items() if 2 * count >= len(counted)}
        if common and any(common <= own for own in counted):
            return sorted(common)
    return sorted(set.union(*several))
