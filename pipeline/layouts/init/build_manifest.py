"""The manifest of a listed data set."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.dataset.manifest import Manifest, ManifestCase
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase
from pipeline.layouts.formats.dataset_json import labels_to_dataset_json
from pipeline.layouts.init.label_map_survey import FileSurvey
from pipeline.layouts.label_names import LabelNames
from pipeline.layouts.subject_ids import subjects_of


def common_root(found: DatasetListing) -> Path:
    """The folder itself, or the nearest one that also holds files listed outside it."""
    normal = [os.path.normpath(path) for case in found.cases for path in case.files]
    return Path(os.path.commonpath([str(found.folder), *normal]))


def make_manifest(
    found: DatasetListing, labelling: LabelNames | None, census: FileSurvey, root: Path, root_from_here: str
) -> Manifest:
    labelling = labelling or LabelNames()
    try:
        return Manifest(
            name=found.name,
            description=found.description,
            licence=found.licence,
            source=found.source,
            channels=found.channels,
            labels={structure: labels_to_dataset_json(values) for structure, values in labelling.structures.items()},
            ignore_label=labelling.ignore_value,
            overlapping=labelling.overlapping,
            root=root_from_here,
            cases=tuple(map(partial(_case, census=census, root=root), found.cases, subjects_of(found.cases))),
        )
    except ValidationError as error:
        problems = [Problem("the manifest", details["msg"].removeprefix("Value error, ")) for details in error.errors()]
        raise DataError(problem_list(str(found.folder), problems)) from None


def _case(case: ListedCase, subject: str, census: FileSurvey, root: Path) -> ManifestCase:
    def relative(path: Path) -> str:
        return Path(os.path.normpath(path)).relative_to(root).as_posix()

    return ManifestCase(
        id=case.id,
        subject=subject,
        images=tuple(relative(path) for path in case.images),
        label=relative(case.label) if case.label else None,
        split=case.split,
        fold=case.fold,
        sha256={relative(path): census.sha256[path] for path in case.files if path in census.sha256},
        extra=dict(case.extra),
    )
