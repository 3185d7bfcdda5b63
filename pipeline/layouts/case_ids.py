"""Case ids from file names, and the refusal of those that two cases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.dataset.manifest import unusable_id
from pipeline.io.image_file_names import CHANNEL_SUFFIX, stem
from pipeline.layouts.dataset_listing import DatasetListing


def ids_of(images: Sequence[Path]) -> list[str]:
    """Case ids of listed images: names without ending and channel suffix, where that tells them apart.

    A list of `case_0001`, `case_0002`, ... keeps the digits: they are not channels of one case.
    """
    whole = [stem(path) for path in images]
    short = [CHANNEL_SUFFIX.sub("", name) for name in whole]
    return short if len(set(short)) == len(set(whole)) else whole


def refuse_shared_ids(claims: Mapping[str, Sequence[Path | str]], cure: str = "or rename the others") -> None:
    """Raises a DataError that names every case id claimed by more than one file (or row)."""
    problems = [
        Problem(name, f"is the id of {len(files)}: {', '.join(map(str, files))}; keep one, {cure}")
        for name, files in sorted(claims.items())
        if len(files) > 1
    ]
    if problems:
        raise DataError(problem_list("the data set (case id = file name without ending and channel suffix)", problems))


def refuse_unusable_ids(found: DatasetListing) -> None:
    """Before anything is written under an id: label maps, links."""
    problems = [Problem(case.id, fault) for case in found.cases if (fault := unusable_id(case.id))]
    if problems:
        raise DataError(problem_list(str(found.folder), problems))
