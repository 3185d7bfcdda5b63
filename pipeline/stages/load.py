"""Stage load: what is this data, and is it sound? Reads every case wholly and names every fault at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import read_json, sha256_of, write_json
from pipeline.base.machine import Runtime
from pipeline.base.stage import RECORD, Stage, StageResult
from pipeline.base.strict_model import StrictModel

if TYPE_CHECKING:
    from pipeline.dataset.checks.faults import Fault
    from pipeline.dataset.manifest import Manifest

log = logging.getLogger(__name__)

_TO_TRAIN = "give cases a label map and the split training"


class DataConfig(StrictModel):
    """Where the data is."""

    manifest: Path
    """The manifest: cases, labels, licence, splits (`data_manifests/README.md`)."""
    root: Path | None = None
    """The folder that the manifest's paths start from; null: the manifest's own root."""
    download: str | None = None
    """Reserved for data sets that may be fetched on request; nothing is ever fetched unasked."""


class LoadConfig(StrictModel):
    """How strictly data is checked."""

    on_fault: Literal["stop", "exclude"] = "stop"
    """stop: end with exit code 3 before any computing. exclude: go on without the faulty cases, end with 4."""
    grid_tolerance_mm: float = Field(default=0.1, ge=0)
    """How far corners of an image and its label may be apart; channels are held to 0.1 mm."""
    resample_channels: bool = False
    """Channels on another grid than the first one are resampled onto it (linearly); false: that is a fatal fault."""


class LoadReads(StrictModel):
    """What this stage reads of the configuration."""

    data: DataConfig
    load: LoadConfig


def run(config: LoadReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> StageResult:  # noqa: ARG001
    """Writes cases.json, fingerprint.json, faults.json and location.json; DataError where a fault is fatal."""
    from pipeline.dataset.cases_json import Cases
    from pipeline.dataset.checks.fault_report import as_json
    from pipeline.dataset.fingerprint import fingerprint
    from pipeline.dataset.manifest import read_manifest

    manifest, root = read_manifest(config.data.manifest), data_root(config.data)
    examined = examine(manifest, root, runtime, config.load, to_train=True)
    write_json(out / "faults.json", as_json(examined.faults))
    show_faults(examined.faults, len(manifest.cases))
    _refuse_faulty_training(manifest, examined.fatal, config, out)
    _say_emptied_folds(manifest, examined.fatal)
    sound = [measured for measured in examined.measured if measured["id"] not in examined.fatal]
    if not any(case.split == "training" for case in manifest.cases):
        raise DataError(f"{config.data.manifest}: has no training case; {_TO_TRAIN}")
    if not any(case["split"] == "training" for case in sound):
        raise DataError(f"{config.data.manifest}: no sound training case is left; repair the faults above")
    cases = Cases.model_validate(
        {
            "dataset": manifest.name,
            "channels": [channel.model_dump() for channel in manifest.channels],
            "structures": manifest.structures,
            "ignore_value": manifest.ignore_label,
            "overlapping": manifest.overlapping,
            "resample_channels": config.load.resample_channels,
            "grid_tolerance_mm": config.load.grid_tolerance_mm,
            "licence": manifest.licence,
            "cases": sound,
        }
    )
    write_json(out / "cases.json", cases.model_dump(mode="json"))
    write_json(out / "fingerprint.json", fingerprint(cases))
    write_json(out / "location.json", {"root": str(root)})
    log.info("%d cases: %d for training, %d for testing", len(sound), len(cases.training()), len(cases.testing()))
    return StageResult(failed_cases=examined.fatal)


def check(
    manifest: Manifest, root: Path, runtime: Runtime, config: LoadConfig | None = None, to_train: bool = False
) -> tuple[Fault, ...]:
    """Every fault of every case and between cases, for `segpipe check`: nothing is written, nothing computed on.

    to_train: the data is meant for training, so that testing cases alone are a fault.
    """
    return examine(manifest, root, runtime, config or LoadConfig(), to_train).faults


def data_root(data: DataConfig) -> Path:
    """The folder that case paths are relative to; ConfigError where it does not exist."""
    root = _root(data)
    if not root.is_dir():
        raise ConfigError(
            f"data.root: there is no folder {root}; give the folder of the scans with --set data.root=DIR"
        )
    return root.resolve()


def _root(data: DataConfig) -> Path:
    from pipeline.dataset.manifest import read_manifest

    own = read_manifest(data.manifest).root
    return data.root or (data.manifest.parent / own if own else data.manifest.parent)


@dataclass(frozen=True)
class Examined:
    """What is wrong with a data set, which cases have a fatal fault, and what was measured of the readable ones."""

    faults: tuple[Fault, ...]
    fatal: tuple[str, ...]
    measured: tuple[dict[str, Any], ...]


def examine(manifest: Manifest, root: Path, runtime: Runtime, config: LoadConfig, to_train: bool) -> Examined:
    """Checks all cases in parallel, then what only shows between them; in the manifest's order."""
    from pipeline.dataset.checks.check_case import CheckTask, check_case, finding_for_killed_worker
    from pipeline.dataset.checks.cross_case_checks import check_across_cases
    from pipeline.parallel.map_cases import map_cases

    common = manifest.model_copy(update={"cases": ()})
    tasks = [
        CheckTask(case, common, root, config.grid_tolerance_mm, config.resample_channels) for case in manifest.cases
    ]
    findings = list(
        map_cases(check_case, tasks, runtime, "checking", finding_for_killed_worker, attrgetter("out_of_memory"))
    )
    faults = [
        *_nothing_to_do(manifest, to_train),
        *(fault for finding in findings for fault in finding.faults),
        *check_across_cases(findings, manifest),
    ]
    fatal = {fault.case for fault in faults if fault.severity == "fatal"}
    return Examined(
        tuple(faults),
        tuple(case.id for case in manifest.cases if case.id in fatal),
        tuple(finding.measured for finding in findings if finding.measured is not None),
    )


def _nothing_to_do(manifest: Manifest, to_train: bool) -> list[Fault]:
    """The fault of a data set without a case, or without one to train on."""
    from pipeline.dataset.checks.faults import ALL_CASES, Fault

    if not manifest.cases:
        cure = "make it anew with `segpipe init`, from the folder that holds the scans"
        return [Fault(ALL_CASES, "", "fatal", "no-case", "the manifest has no case", cure)]
    if not to_train or any(case.split == "training" for case in manifest.cases):
        return []
    found = f"none of the {len(manifest.cases)} cases is for training"
    return [Fault(ALL_CASES, "", "fatal", "no-training-case", found, _TO_TRAIN)]


def show_faults(faults: Sequence[Fault], cases: int) -> None:
    """Every fault on screen, the fatal ones first, with its cure."""
    from pipeline.dataset.checks.fault_report import lines, summary

    for severity, line in lines(faults):
        log.log(logging.WARNING if severity == "fatal" else logging.INFO, "%s", line)
    log.info("%s", summary(faults, cases))


def _refuse_faulty_training(manifest: Manifest, fatal: Sequence[str], config: LoadReads, out: Path) -> None:
    """Testing cases with a fatal fault are left out; training cases stop the run unless it is told otherwise."""
    training = {case.id for case in manifest.cases if case.split == "training"}
    faulty = [case for case in fatal if case in training]
    if faulty and config.load.on_fault == "stop":
        raise DataError(
            f"{len(faulty)} of {len(training)} training cases have fatal faults (above, and in {out / 'faults.json'}): "
            f"{', '.join(faulty)}; repair them, or go on without them with --set load.on_fault=exclude"
        )


def _say_emptied_folds(manifest: Manifest, fatal: Sequence[str]) -> None:
    """Which folds of the manifest have no case left, and whose cases are missing there."""
    from pipeline.dataset.folds import given_folds

    training = [case for case in manifest.cases if case.split == "training"]
    given, left = given_folds(training), given_folds(case for case in training if case.id not in fatal)
    for fold in (fold for fold in given if fold not in left):
        gone = ", ".join(case.id for case in training if case.fold == fold)
        log.warning("fold %d of the manifest is dropped, since all of its cases are left out: %s", fold, gone)
    if left != given and left != list(range(len(left))):
        now = ", ".join(f"{fold} is now {number}" for number, fold in enumerate(left))
        log.warning("the other folds are counted anew: %s", now)


def changed_since(config: LoadReads, folder: Path) -> list[str]:
    """What the finished stage in `folder` was made from and is another now: load.* keys, the manifest, files.

    Paths are not compared, nor what is not there: a run folder goes on where its data has moved, or never was, and a
    stage that needs a scan says so itself. Of a file with another date the content counts.
    """
    request = read_json(folder / RECORD)["request"]
    recorded, wanted = request["config"]["load"], config.load.model_dump(mode="json")
    changed = [f"load.{key}" for key in sorted({*recorded, *wanted}) if recorded.get(key) != wanted.get(key)]
    if not config.data.manifest.is_file():
        return changed
    if sha256_of(config.data.manifest) != request["sources"].get("manifest"):
        return [*changed, f"the manifest {config.data.manifest}"]
    return [*changed, *_changed_files(config.data, request["sources"], folder)]


def _changed_files(data: DataConfig, recorded: Mapping[str, str], folder: Path) -> list[str]:
    from pipeline.dataset.cases_json import read_cases
    from pipeline.dataset.manifest import read_manifest
    from pipeline.io.hashing import file_digest

    root = _root(data)
    stats = {file: _size_and_date(root / file) for file in _files(read_manifest(data.manifest))}
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


def _sources(config: LoadReads) -> Mapping[str, Any]:
    """The manifest's content, and size and date of every file: a replaced scan is noticed."""
    from pipeline.dataset.manifest import read_manifest

    root = data_root(config.data)
    result: dict[str, Any] = {"manifest": sha256_of(config.data.manifest)}
    return result | {file: _size_and_date(root / file) for file in _files(read_manifest(config.data.manifest))}


def _files(manifest: Manifest) -> list[str]:
    """All files of a data set, relative to its root."""
    return [file for case in manifest.cases for file in (*case.images, *([case.label] if case.label else []))]


def _size_and_date(path: Path) -> str:
    """Of a file (with the other one of a pair), or of all files of a DICOM series."""
    from pipeline.io.image_file_names import voxel_files

    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path, *voxel_files(path)]
        stats = [file.stat() for file in files if file.is_file()]
    except OSError as error:  # the checks name it, with its case
        return f"not readable: {error.strerror}"
    return f"{sum(s.st_size for s in stats)} {max((s.st_mtime_ns for s in stats), default='missing')}"


STAGE = Stage(
    name="load",
    version=8,
    config=LoadReads,
    reads={"data": "data", "load": "load"},
    inputs=(),
    outputs=("cases.json", "fingerprint.json", "faults.json", "location.json"),
    run=run,
    not_hashed={"location.json": ()},
    sources=_sources,
)
