"""What looks wrong about cases that were found in plain folders, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import Problem
from pipeline.io.image_file_names import stem
from pipeline.layouts.dataset_listing import ListedCase
from pipeline.layouts.folders.label_maps_by_content import Content, content_of
from pipeline.layouts.folders.name_vocabulary import words_of

_LOOKED_AT = 3


def find_suspicious_cases(folder: Path, cases: Sequence[ListedCase]) -> list[Problem]:
    """Label maps that are named for other cases, and images that look like label maps."""
    return [*_named_for_others(folder, cases), *_label_maps_among(folder, cases)]


def _named_for_others(folder: Path, cases: Sequence[ListedCase]) -> list[Problem]:
    """Label maps whose names begin with the id of another case, and not with that of their own (`c1/c2_seg`)."""
    subjects = {case.subject or case.id for case in cases}
    problems = []
    for case in cases:
        words = words_of(stem(case.label)) if case.label else []
        named = subjects & {"_".join(words[:count]) for count in range(1, len(words) + 1)}
        if named and not named & {case.id, case.subject} and case.label:
            found = f"its label map is {case.label.relative_to(folder)}, which names {', '.join(sorted(named))}"
            problems.append(Problem(case.id, f"{found}; look whether it lies in the right place"))
    return problems


def _label_maps_among(folder: Path, cases: Sequence[ListedCase]) -> list[Problem]:
    """Images that look like label maps themselves; a few cases are looked at, with a label and without one."""
    labelled = [case.images[0] for case in cases if (case.label or case.masks) and len(case.images) == 1]
    unlabelled = [case.images[0] for case in cases if case.label is None and not case.masks]
    problems = []
    for kind, images in (("training cases", labelled), ("testing cases", unlabelled)):
        looked_at = images[-_LOOKED_AT:]
        if found := [str(path.relative_to(folder)) for path in looked_at if content_of(path) is Content.LABELS]:
            what = f"of {len(looked_at)} {kind} that were looked at, have the voxels of label maps"
            cure = "say what is meant with --label-files and --image-files"
            problems.append(Problem("images", f"{', '.join(found)}, {what}; {cure}"))
    return problems
