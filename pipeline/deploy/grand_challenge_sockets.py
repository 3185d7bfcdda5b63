"""Scans in the folders of grand-challenge's sockets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.deploy.group_scan_files import Scan, images_in
from pipeline.deploy.list_scans import list_scans
from pipeline.io.image_file_names import case_id


def scans_in_sockets(sockets: Sequence[Path], channels: Sequence[str]) -> list[Scan]:
    """The cases in grand-challenge's folders of one socket each, sorted by id.

    Where a model of several channels finds one file in each of several sockets, they are one case: each channel's
    socket is the one whose name holds the channel's ("t2-flair" is for T2_FLAIR), and the first channel's file gives
    the case its id. A model of one channel takes the only socket that is called as it, if one is (the others may hold
    masks). Else every socket is a folder of cases. Raises a DataError where nothing is found.
    """
    if len(channels) == 1:
        named = [socket for socket in sockets if _is_called(socket, channels[0])]
        sockets = named if len(named) == 1 else sockets
    files = {socket: images_in(socket) for socket in sockets}
    if len(channels) < 2 or len(sockets) < 2 or any(len(images) != 1 for images in files.values()):
        found = [(socket, scan) for socket in sockets for scan in list_scans(socket, channels)]
        times = Counter(scan.id for _, scan in found)
        unique = [scan if times[scan.id] == 1 else replace(scan, id=f"{s.name}_{scan.id}") for s, scan in found]
        return sorted(unique, key=lambda scan: scan.id)
    fitting: dict[str, list[Path]] = {}
    for name in sorted(channels, key=len, reverse=True):  # T1C before T1, which its socket's name holds too
        left = [socket for socket in sockets if [socket] not in fitting.values()]
        fitting[name] = [socket for socket in left if _is_called(socket, name)]
    if any(len(found) != 1 for found in fitting.values()):
        what = "; ".join(f"{name}: {', '.join(s.name for s in fitting[name]) or 'none'}" for name in channels)
        fault = f"each channel of the model needs one socket whose name holds its name; found {what}"
        first, *others = (images[0] for images in files.values())
        return [Scan(case_id(first), (first, *others), fault)]
    first, *others = (files[fitting[name][0]][0] for name in channels)
    return [Scan(case_id(first), (first, *others))]


def _is_called(socket: Path, channel: str) -> bool:
    """Whether words of a socket's name, one or several in a row, are the channel's: not the ct of `prediction`."""
    words = re.split(r"[^a-z0-9]+", socket.name.lower())
    runs = ("".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return _letters(channel) in runs


def _letters(name: str) -> str:
    """Letters and digits alone, in small: slugs have no other case and no underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def grand_challenge_sockets(input_folder: Path) -> list[Path]:
    """The folder of each socket in `images/`, none where the input is laid out otherwise."""
    images = input_folder / "images"
    return sorted(path for path in images.iterdir() if path.is_dir()) if images.is_dir() else []
