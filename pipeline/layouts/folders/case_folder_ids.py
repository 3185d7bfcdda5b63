"""What tells folders of cases apart: their own names, or those of folders above."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def ids_of_folders(folder: Path, cases: Collection[Path]) -> dict[Path, str]:
    """Each case's folder to an id: its own name, where that tells cases apart.

    Else what does, of the folders above: `sub-1` of `sub-1/ses-1/anat` where all end so, `Center_1_Patient_1` where
    another centre has a Patient_1 too.
    """
    parts = distinguishing_parts(folder, cases)
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ids = {case: "_".join(own[-count:]) or folder.name for case, own in parts.items()}
        if len(set(ids.values())) == len(ids):
            return ids
    return {case: case.name for case in cases}


def distinguishing_parts(folder: Path, cases: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Each case's folder to its path below `folder`, without what all end with."""
    parts = {case: case.relative_to(folder).parts for case in cases}
    while len(parts) > 1 and len({own[-1:] for own in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {case: own[:-1] for case, own in parts.items()}
    return parts
