"""Files outside the run folder that stages read: where they lie, their digests, and which of them changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import read_json
from pipeline.base.hashing import sha256_of
from pipeline.base.stage import RECORD
from pipeline.base.strict_model import fill_absent
from pipeline.config.data import DataConfig
from pipeline.dataset.loaded_cases import read_cases
from pipeline.dataset.manifest import Manifest, data_root, read_manifest
from pipeline.io.file_stamps import size_and_date
from pipeline.io.scan_digests import file_digest
from pipeline.stages.stage_configs import LoadStageConfig, TrainStageConfig
from pipeline.training.find_pretrained_weights import find_pretrained_weights

log = logging.getLogger(__name__)


def require_data_root(data: DataConfig) -> Path:
    """The folder that case paths are relative to; ConfigError where it does not exist."""
    root = data_root(data.manifest, data.root)
    if not root.is_dir():
        raise ConfigError(
            f"data.root: there is no folder {root}; give the folder of the scans with --set data.root=DIR"
        )
    return root.resolve()


def digest_data_files(config: LoadStageConfig) -> Mapping[str, Any]:
    """The manifest's content, and size and date of every file: a replaced scan is noticed."""
    root = require_data_root(config.data)
    result: dict[str, Any] = {"manifest": sha256_of(config.data.manifest)}
    return result | {file: size_and_date(root / file) for file in _files(read_manifest(config.data.manifest))}


def digest_pretrained_weights(config: TrainStageConfig) -> Mapping[str, str]:
    """The digest of the weights that training begins from."""
    if config.train.pretrained is None:
        return {}
    try:
        return {"pretrained": sha256_of(find_pretrained_weights(config.train.pretrained))}
    except (DataError, OSError):
        return {"pretrained": "missing"}  # training will say so


def changed_data_files(config: LoadStageConfig, folder: Path) -> list[str]:
    """What the finished stage in `folder` was made from and is another now: load.* keys, the manifest, files.

    Paths are not compared, nor what is not there: a run folder goes on where its data has moved, or never was, and a
    stage that needs a scan says so itself. Of a file with another date the content counts.
    """
    request = read_json(folder / RECORD)["request"]
    recorded = fill_absent(type(config.load), request["config"]["load"])
    wanted = config.load.model_dump(mode="json")
    changed = [f"load.{key}" for key in sorted({*recorded, *wanted}) if recorded.get(key) != wanted.get(key)]
    if not config.data.manifest.is_file():
        return changed
    if sha256_of(config.data.manifest) != request["sources"].get("manifest"):
        return [*changed, f"the manifest {config.data.manifest}"]
    return [*changed, *_changed_files(config.data, request["sources"], folder)]


def _changed_files(data: DataConfig, recorded: Mapping[str, str], folder: Path) -> list[str]:
    root = data_root(data.manifest, data.root)
    stats = {file: size_and_date(root / file) for file in _files(read_manifest(data.manifest))}
    there = {file: now for file, now in stats.items() if now.split()[-1].isdigit()}  # with a date
    digests = {file: digest for case in read_cases(folder).cases for file, digest in case.sha256.items()}
    # Of a case that was left out no digest is kept, and later stages read none of its files.
    doubtful = [file for file, now in there.items() if file in digests and now != recorded.get(file)]
    if doubtful:
        now_dated = "`segpipe load CONFIG` records the new dates"
        log.info("%d files have another date than when they were loaded; comparing them (%s)", len(doubtful), now_dated)
    return [file for file in doubtful if _digest(root / file, file_digest) != digests[file]]


def _digest(path: Path, of: Callable[[Path], str]) -> str:
    try:
        return of(path)
    except OSError as error:
        return f"not readable: {error.strerror}"


def _files(manifest: Manifest) -> list[str]:
    """All files of a data set, relative to its root."""
    return [file for case in manifest.cases for file in (*case.images, *([case.label] if case.label else []))]
