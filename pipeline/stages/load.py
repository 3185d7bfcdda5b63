"""Stage load: what is this data, and is it sound? Reads every case wholly and names every fault at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError
from pipeline.base.files import write_json
from pipeline.base.machine import Runtime
from pipeline.base.stage import StageResult
from pipeline.config.load import LoadConfig
from pipeline.dataset.cases_json import Cases
from pipeline.dataset.checks.check_case import CheckTask, check_case, finding_for_killed_worker
from pipeline.dataset.checks.cross_case_checks import check_across_cases
from pipeline.dataset.checks.fault_report import as_json, lines, summary
from pipeline.dataset.checks.faults import ALL_CASES, Fault
from pipeline.dataset.fingerprint import fingerprint
from pipeline.dataset.folds import given_folds
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.parallel.map_cases import map_cases
from pipeline.stages.input_files import require_data_root
from pipeline.stages.stage_configs import LoadStageConfig

log = logging.getLogger(__name__)

_TO_TRAIN = "give cases a label map and the split training"


def run(config: LoadStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> StageResult:  # noqa: ARG001
    """Writes cases.json, fingerprint.json, faults.json and location.json; DataError where a fault is fatal."""
    manifest, root = read_manifest(config.data.manifest), require_data_root(config.data)

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


@dataclass(frozen=True)
class Examined:
    """What is wrong with a data set, which cases have a fatal fault, and what was measured of the readable ones."""

    faults: tuple[Fault, ...]
    fatal: tuple[str, ...]
    measured: tuple[dict[str, Any], ...]


def examine(manifest: Manifest, root: Path, runtime: Runtime, config: LoadConfig, to_train: bool) -> Examined:
    """Checks all cases in parallel, then what only shows between them; in the manifest's order."""
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
    if not manifest.cases:
        cure = "make it anew with `segpipe init`, from the folder that holds the scans"
        return [Fault(ALL_CASES, "", "fatal", "no-case", "the manifest has no case", cure)]
    if not to_train or any(case.split == "training" for case in manifest.cases):
        return []
    found = f"none of the {len(manifest.cases)} cases is for training"
    return [Fault(ALL_CASES, "", "fatal", "no-training-case", found, _TO_TRAIN)]


def show_faults(faults: Sequence[Fault], cases: int) -> None:
    """Every fault on screen, the fatal ones first, with its cure."""

    for severity, line in lines(faults):
        log.log(logging.WARNING if severity == "fatal" else logging.INFO, "%s", line)
    log.info("%s", summary(faults, cases))


def _refuse_faulty_training(manifest: Manifest, fatal: Sequence[str], config: LoadStageConfig, out: Path) -> None:
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
    training = [case for case in manifest.cases if case.split == "training"]
    given, left = given_folds(training), given_folds(case for case in training if case.id not in fatal)
    for fold in (fold for fold in given if fold not in left):
        gone = ", ".join(case.id for case in training if case.fold == fold)
        log.warning("fold %d of the manifest is dropped, since all of its cases are left out: %s", fold, gone)
    if left != given and left != list(range(len(left))):
        now = ", ".join(f"{fold} is now {number}" for number, fold in enumerate(left))
        log.warning("the other folds are counted anew: %s", now)
