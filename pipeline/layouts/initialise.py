"""`segpipe init`: from a folder as people have it to a manifest and a configuration that runs as it stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError, Problem, problem_list
from pipeline.base.terminal import format_table
from pipeline.data.manifest import Manifest, ManifestCase, write_manifest
from pipeline.layouts.census import Census, compare, infer, take_census
from pipeline.layouts.channels import with_inferred_channels
from pipeline.layouts.detect import read_layout
from pipeline.layouts.found import Found, FoundCase, refuse_shared_ids, subject_of
from pipeline.layouts.labelling import Labelling, from_option, to_descriptor
from pipeline.layouts.masks import merge_masks
from pipeline.layouts.write_config import write_config


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
        parts += [f"wrote {self.manifest}", f"wrote {self.config}", f"next: segpipe check {self.config}"]
        return "\n".join(parts)


def _values_text(values: int | Sequence[int]) -> str:
    return str(values) if isinstance(values, int) else "+".join(map(str, values))


def init(folder: Path, config_path: Path, format: str = "auto", labels: str | None = None) -> InitResult:
    """Recognises the layout of `folder`, writes CONFIG.yaml and beside it CONFIG.manifest.json.

    Where a case has a mask per structure, label maps merged of them are written into CONFIG.labels/.

    format: a layout's name, or auto. labels: `name=value,...` over those of the descriptor. A broken file does not
    end it: its case stays in the manifest, is listed, and the configuration excludes what is faulty. Raises a
    ConfigError for a wrong option, a DataError where nothing is found or where two cases would have one id.
    """
    if config_path.is_dir():
        raise ConfigError(
            f"-o {config_path}: is a folder; name the file to write, for instance {config_path / 'mine.yaml'}"
        )
    declared = from_option(labels) if labels else None
    found = _with_the_split_as_fold_0(read_layout(folder, format))
    refuse_shared_ids(_claims(found))
    if found.paths_identify:
        found = _linked(found, config_path.absolute().with_suffix(".links"))
    if any(case.masks for case in found.cases):
        found = merge_masks(found, config_path.absolute().with_suffix(".labels"))
    census = take_census(found.cases)
    labelling, notes, problems = _labelling(found, declared, census)
    found, channel_notes = with_inferred_channels(found, census)
    manifest_path = config_path.with_suffix(".manifest.json")
    root = _root(found)
    root_from_here = os.path.relpath(root, config_path.absolute().parent)
    manifest = _manifest(found, labelling, census, root, root_from_here)
    write_manifest(manifest_path, manifest)
    kept = write_config(config_path, manifest_path.name, root_from_here, exclude_faulty=bool(census.broken))
    return InitResult(
        layout=found.layout,
        config=config_path,
        manifest=manifest_path,
        dataset=manifest,
        notes=(*found.notes, *notes, *channel_notes, *kept),
        problems=(*found.problems, *census.broken.values(), *problems),
    )


def _claims(found: Found) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for case in found.cases:
        claims.setdefault(case.id, []).append(str(case.images[0]))
    return claims


def _labelling(
    found: Found, declared: Labelling | None, census: Census
) -> tuple[Labelling | None, list[str], list[Problem]]:
    """What the user says, else what the descriptor says, else what the label maps show."""
    if declared is not None:
        return compare(census, declared, lookup=False)
    if found.labelling is not None:
        return compare(census, found.labelling, found.labelling_is_lookup)
    labelling, notes, problems = infer(census)
    if labelling is None and any(case.label for case in found.cases):
        none = Problem("labels", "no readable label map has a value above 0, so there is nothing to learn")
        raise DataError(problem_list(str(found.folder), [*census.broken.values(), *problems, none]))
    return labelling, notes, problems


def _with_the_split_as_fold_0(found: Found) -> Found:
    """Where only fold 0 is declared (one split into training and validation), all other cases are put into fold 1.

    So fold 0 trains and validates on just what was declared; without it, open cases would join its validation.
    """
    folds = {case.fold for case in found.cases if case.split == "training"}
    if folds != {0, None}:
        return found
    cases = [replace(c, fold=1) if c.split == "training" and c.fold is None else c for c in found.cases]
    note = "fold 0 is the declared split into training and validation; fold 1 is its reverse"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note))


def _linked(found: Found, links: Path) -> Found:
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


def _root(found: Found) -> Path:
    """The folder itself, or the nearest one that also holds files listed outside it."""
    normal = [os.path.normpath(path) for case in found.cases for path in case.files]
    return Path(os.path.commonpath([str(found.folder), *normal]))


def _manifest(found: Found, labelling: Labelling | None, census: Census, root: Path, root_from_here: str) -> Manifest:
    labelling = labelling or Labelling()
    return Manifest(
        name=found.name,
        description=found.description,
        licence=found.licence,
        source=found.source,
        channels=found.channels,
        labels={structure: to_descriptor(values) for structure, values in labelling.structures.items()},
        ignore_label=labelling.ignore_value,
        overlapping=labelling.overlapping,
        root=root_from_here,
        cases=tuple(_case(case, census, root) for case in found.cases),
    )


def _case(case: FoundCase, census: Census, root: Path) -> ManifestCase:
    def relative(path: Path) -> str:
        return Path(os.path.normpath(path)).relative_to(root).as_posix()

    return ManifestCase(
        id=case.id,
        subject=case.subject or subject_of(case.id),
        images=tuple(relative(path) for path in case.images),
        label=relative(case.label) if case.label else None,
        split=case.split,
        fold=case.fold,
        sha256={relative(path): census.sha256[path] for path in case.files if path in census.sha256},
        extra=dict(case.extra),
    )
