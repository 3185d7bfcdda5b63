"""`segpipe init`: from a folder as people have it to a manifest and a configuration that runs as it stands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from pipeline.base.errors import ConfigError, DataError, Problem, problem_list
from pipeline.base.files import write_text
from pipeline.base.terminal import format_table
from pipeline.dataset.manifest import Manifest, ManifestCase, unusable_id, write_manifest
from pipeline.layouts.dataset_listing import DatasetListing, ListedCase, refuse_shared_ids, subject_of
from pipeline.layouts.detect_layout import read_layout
from pipeline.layouts.folders.file_roles import NO_PATTERNS, FilePatterns
from pipeline.layouts.init.file_survey import FileSurvey, compare, infer, survey_files
from pipeline.layouts.init.infer_channels import infer_channels, put_label_grid_channels_first
from pipeline.layouts.init.merge_masks import merge_masks
from pipeline.layouts.init.write_config import backup_existing, config_text
from pipeline.layouts.label_names import LabelNames, labels_from_option, labels_to_dataset_json


@dataclass(frozen=True)
class InitResult:
    """What `init` wrote, and what it has to say: `notes` (assumptions) and `problems` (to be looked at)."""

    layout: str
    config: Path
    manifest: Path
    dataset: Manifest
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def message(self) -> str:
        """All of it for the terminal: tables of channels and structures, assumptions, problems, the next command."""
        training = [case for case in self.dataset.cases if case.split == "training"]
        count = f"{len(training)} training and {len(self.dataset.cases) - len(training)} testing cases"
        labels = [(name, _values_text(values)) for name, values in self.dataset.labels.items()]
        parts = [
            f"{self.layout} layout: {count}, {len(self.dataset.channels)} channel(s)",
            format_table(("channel", "modality"), [(c.name, c.modality) for c in self.dataset.channels]),
            format_table(("structure", "value"), labels)
            if labels
            else "no structures: nothing can be trained from this data",
            *(f"note: {note}" for note in self.notes),
        ]
        if self.problems:
            parts.append(problem_list("the data", self.problems))
        parts += [
            f"wrote {self.manifest}",
            f"wrote {self.config}",
            f"next: segpipe check {shlex.quote(str(self.config))}",
        ]
        return "\n".join(parts)


def _values_text(values: int | Sequence[int]) -> str:
    return str(values) if isinstance(values, int) else "+".join(map(str, values))


def init_dataset(
    folder: Path,
    config_path: Path,
    format: str = "auto",
    labels: str | None = None,
    chosen: FilePatterns = NO_PATTERNS,
) -> InitResult:
    """Recognises the layout of `folder`, writes CONFIG.yaml and beside it CONFIG.manifest.json.

    Where a case has a mask per structure, label maps merged of them are written into CONFIG.labels/.

    format: a layout's name, or auto. labels: `name=value,...` over those of the descriptor; where structures have masks
    of their own, which are taken. chosen: which files of plain folders are label maps, and which images. A broken file
    does not end it: its case stays in the manifest, is listed, and the configuration excludes what is faulty. Raises a
    ConfigError for a wrong option, a DataError where nothing is found or where two cases would have one id.
    """
    if config_path.is_dir():
        raise ConfigError(
            f"-o {config_path}: is a folder; name the file to write, for instance {config_path / 'mine.yaml'}"
        )
    _refuse_unwritable(config_path.absolute().parent, config_path)
    declared = labels_from_option(labels) if labels else None
    found = _with_the_split_as_fold_0(_with_folds_from_0(read_layout(folder, format, chosen)))
    refuse_shared_ids(_claims(found))
    _refuse_unusable_ids(found)
    if found.paths_identify:
        found = _linked(found, config_path.absolute().with_suffix(".links"))
    if any(case.masks for case in found.cases):
        found = merge_masks(found, config_path.absolute().with_suffix(".labels"), declared)
        declared = None  # it says which masks are meant, and their values
    if not found.cases:
        none = Problem("cases", "none is left, so there is nothing to learn from")
        raise DataError(problem_list(str(found.folder), [*found.problems, none]))
    census = survey_files(found.cases)
    labelling, notes, problems = _labelling(found, declared, census)
    found, grid_notes = put_label_grid_channels_first(found, census)
    found, channel_notes = infer_channels(found, census)
    manifest_path = config_path.with_suffix(".manifest.json")
    root = _root(found)
    root_from_here = os.path.relpath(root, config_path.absolute().parent)
    manifest = _manifest(found, labelling, census, root, root_from_here)
    kept = backup_existing(manifest_path, partial(write_manifest, manifest_path, manifest))
    text = config_text(config_path, manifest_path.name, root_from_here, exclude_faulty=bool(census.broken))
    kept += backup_existing(config_path, partial(write_text, config_path, text))
    return InitResult(
        layout=found.layout,
        config=config_path,
        manifest=manifest_path,
        dataset=manifest,
        notes=(*found.notes, *notes, *grid_notes, *channel_notes, *kept),
        problems=(*found.problems, *census.broken.values(), *problems),
    )


def _refuse_unwritable(folder: Path, config_path: Path) -> None:
    """Before hundreds of scans are read."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"-o {config_path}: nothing can be written into {there}; name a file in another folder")


def _refuse_unusable_ids(found: DatasetListing) -> None:
    """Before anything is written under an id: label maps, links."""
    problems = [Problem(case.id, fault) for case in found.cases if (fault := unusable_id(case.id))]
    if problems:
        raise DataError(problem_list(str(found.folder), problems))


def _claims(found: DatasetListing) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for case in found.cases:
        claims.setdefault(case.id, []).append(str(case.images[0]))
    return claims


def _labelling(
    found: DatasetListing, declared: LabelNames | None, census: FileSurvey
) -> tuple[LabelNames | None, list[str], list[Problem]]:
    """What the user says, else what the descriptor says, else what the label maps show."""
    if declared is not None:
        return compare(census, declared, lookup=False)
    unknown = []
    if found.labelling is not None:
        known, notes, problems = compare(census, found.labelling, found.labelling_is_lookup)
        if known.structures or not census.values:
            return known, notes, problems
        unknown = [Problem("labels", "the table of names has no value that occurs; all are named label_VALUE instead")]
    labelling, notes, problems = infer(census)
    problems = [*unknown, *problems]
    if labelling is None and any(case.label for case in found.cases):
        none = Problem("labels", "no readable label map has a value above 0, so there is nothing to learn")
        raise DataError(problem_list(str(found.folder), [*census.broken.values(), *problems, none]))
    return labelling, notes, problems


def _with_folds_from_0(found: DatasetListing) -> DatasetListing:
    """Declared folds counted from 0 without gaps, as runs name them: 1 to 5 become 0 to 4."""
    given = sorted({case.fold for case in found.cases if case.split == "training" and case.fold is not None})
    number = {fold: i for i, fold in enumerate(given)}
    if given == list(number.values()):
        return found
    cases = [
        replace(case, fold=number[case.fold]) if case.split == "training" and case.fold is not None else case
        for case in found.cases
    ]
    note = f"folds {', '.join(map(str, given))} are counted from 0 here: {', '.join(map(str, number.values()))}"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note))


def _with_the_split_as_fold_0(found: DatasetListing) -> DatasetListing:
    """Where only fold 0 is declared (one split into training and validation), all other cases are put into fold 1.

    So fold 0 trains and validates on just what was declared; without it, open cases would join its validation.
    """
    folds = {case.fold for case in found.cases if case.split == "training"}
    if folds != {0, None}:
        return found
    cases = [replace(c, fold=1) if c.split == "training" and c.fold is None else c for c in found.cases]
    note = "fold 0 is the declared split into training and validation; fold 1 is its reverse"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note))


def _linked(found: DatasetListing, links: Path) -> DatasetListing:
    """`found` with its images behind links named by case, since the folders' own names identify persons."""
    links.mkdir(parents=True, exist_ok=True)
    cases = []
    for case in found.cases:
        link = links / case.id
        link.unlink(missing_ok=True)
        link.symlink_to(case.images[0], target_is_directory=True)
        cases.append(replace(case, images=(link,)))
    note = f"folder names carry names or ids of patients: the manifest goes by the links in {links.name}/ instead"
    return replace(found, folder=links, cases=tuple(cases), notes=(*found.notes, note))


def _root(found: DatasetListing) -> Path:
    """The folder itself, or the nearest one that also holds files listed outside it."""
    normal = [os.path.normpath(path) for case in found.cases for path in case.files]
    return Path(os.path.commonpath([str(found.folder), *normal]))


def _manifest(
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
            cases=tuple(map(partial(_case, census=census, root=root), found.cases, _subjects(found.cases))),
        )
    except ValidationError as error:
        problems = [Problem("the manifest", details["msg"].removeprefix("Value error, ")) for details in error.errors()]
        raise DataError(problem_list(str(found.folder), problems)) from None


def _subjects(cases: Sequence[ListedCase]) -> list[str]:
    """Each case's subject, as far as its id tells; where all would be of one, what they share is no person's name."""
    told = [case.subject or subject_of(case.id) for case in cases]
    return told if len(set(told)) > 1 else [case.subject or case.id for case in cases]


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
