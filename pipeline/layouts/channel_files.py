"""Channels of a case by the suffixes of file names, and files of channels that are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import Problem
from pipeline.io.image_file_names import CHANNEL_SUFFIX, image_ending, stem
from pipeline.layouts.case_ids import refuse_shared_ids


def by_channel(paths: Iterable[Path], channels: int) -> dict[str, dict[str, Path]]:
    """Case id to channel (`0000`) to file, by the suffix; a name without one is its case's channel 0000.

    Digits that are no channel's (`case_0007` of a data set with `channels` < 8) belong to the id. Raises a DataError
    that names all files which would become the same case and channel.
    """
    claims: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        text = stem(path)
        suffix = CHANNEL_SUFFIX.search(text)
        if suffix and int(suffix.group(1)) < channels:
            claims[text[: suffix.start()], suffix.group(1)].append(path)
        else:
            claims[text, "0000"].append(path)
    refuse_shared_ids({f"{case} (channel {channel})": files for (case, channel), files in claims.items()})
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    for (name, channel), files in claims.items():
        cases[name][channel] = files[0]
    return dict(cases)


def channel_stack(
    case: str, files: Mapping[str, Path], channels: Sequence[str], problems: list[Problem]
) -> tuple[Path, ...]:
    """A case's files in the order of `channels`; a missing one is named and stands with the name it should have.

    The channel "" is that of a file whose name has no word for it.
    """
    stack = []
    for channel in channels:
        if channel in files:
            stack.append(files[channel])
            continue
        expected = _sister(*next(iter(files.items())), channel)
        missing = f"channel {channel} is missing" if channel else "the image without a channel's name is missing"
        problems.append(Problem(case, f"{missing}; expected {expected.name}"))
        stack.append(expected)
    return tuple(stack)


def _sister(known_channel: str, known: Path, channel: str) -> Path:
    """The path of another channel, by the name of one that is there: `c1_t2` beside `c1_t1`, or beside `c1`."""
    text, ending = stem(known), image_ending(known)
    front, told, behind = text.rpartition(known_channel) if known_channel else ("", "", text)
    if not told:
        name = f"{text}_{channel or 'image'}"
    elif channel:
        name = f"{front}{channel}{behind}"
    else:
        name = f"{front.rstrip('_-. ')}{behind}" or "image"
    return known.with_name(name + ending)
