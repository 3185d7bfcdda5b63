"""Files of plain folders that claim one case id or one channel, and are refused by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.layouts.case_ids import refuse_shared_ids
from pipeline.layouts.dataset_listing import ListedCase
from pipeline.layouts.folders.file_names import Name


def refuse_shared_case_ids(folder: Path, cases: Sequence[ListedCase], labelled: bool) -> None:
    """One id for several files; where nothing is known to be a label map, that is most likely why."""
    claims: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        claims[case.id].append(str(case.images[0].relative_to(folder)))
    if not labelled and all(len(files) > 1 for files in claims.values()):
        places = ", ".join(sorted({str(Path(file).parent) for files in claims.values() for file in files}))
        raise DataError(
            f"{folder}: {places} hold files of the same names, and no name says which are label maps; call their "
            "folder labels (or masks, seg, gt), name them with --label-files, or write a table with columns id, image "
            "and label"
        )
    refuse_shared_ids(claims, "or name those that are meant with --image-files")


def paths_by_case_and_channel(case: str, group: Sequence[Name]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = defaultdict(list)
    for name in group:
        claims[f"{case} (channel {name.channel})" if name.channel else case].append(str(name.path))
    return claims
