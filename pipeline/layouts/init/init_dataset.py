"""`segpipe init`: from a folder as people have it to a manifest and a configuration that runs as it stands."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pipeline.base.errors import ConfigError, DataError, Problem, problem_list
from pipeline.base.files import write_text
from pipeline.dataset.manifest import write_manifest
from pipeline.layouts.case_ids import refuse_shared_ids, refuse_unusable_ids
from pipeline.layouts.dataset_listing import DatasetListing
from pipeline.layouts.detect_layout import read_layout
from pipeline.layouts.folders.split_images_and_labels import NO_PATTERNS, FilePatterns
from pipeline.layouts.init.anonymous_links import link_images
from pipeline.layouts.init.backup_files import backup_existing
from pipeline.layouts.init.build_manifest import common_root, make_manifest
from pipeline.layouts.init.declared_folds import with_folds_from_0, with_split_as_fold_0
from pipeline.layouts.init.infer_channels import infer_channels, put_label_grid_channels_first
from pipeline.layouts.init.infer_labels import decide_labels
from pipeline.layouts.init.init_summary import InitResult
from pipeline.layouts.init.label_map_survey import survey_files
from pipeline.layouts.init.merge_masks import merge_masks
from pipeline.layouts.init.write_config import config_text
from pipeline.layouts.label_option import labels_from_option


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
    found = with_split_as_fold_0(with_folds_from_0(read_layout(folder, format, chosen)))
    refuse_shared_ids(_claims(found))
    refuse_unusable_ids(found)
    if found.paths_identify:
        found = link_images(found, config_path.absolute().with_suffix(".links"))
    if any(case.masks for case in found.cases):
        found = merge_masks(found, config_path.absolute().with_suffix(".labels"), declared)
        declared = None  # it says which masks are meant, and their values
    if not found.cases:
        none = Problem("cases", "none is left, so there is nothing to learn from")
        raise DataError(problem_list(str(found.folder), [*found.problems, none]))
    census = survey_files(found.cases)
    labelling, notes, problems = decide_labels(found, declared, census)
    found, grid_notes = put_label_grid_channels_first(found, census)
    found, channel_notes = infer_channels(found, census)
    manifest_path = config_path.with_suffix(".manifest.json")
    root = common_root(found)
    root_from_here = os.path.relpath(root, config_path.absolute().parent)
    manifest = make_manifest(found, labelling, census, root, root_from_here)
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


def _claims(found: DatasetListing) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for case in found.cases:
        claims.setdefault(case.id, []).append(str(case.images[0]))
    return claims
