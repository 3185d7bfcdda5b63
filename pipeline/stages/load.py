"""Stage load: what is this data, and is it sound? Reads every case wholly and names every fault at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import write_json
from pipeline.base.machine import Runtime
from pipeline.base.stage import StageResult
from pipeline.dataset.checks.check_dataset import check_dataset
from pipeline.dataset.checks.cross_case_checks import TO_TRAIN
from pipeline.dataset.checks.fault_report import as_json, log_faults
from pipeline.dataset.fingerprint import fingerprint
from pipeline.dataset.folds import given_folds
from pipeline.dataset.loaded_cases import Cases
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.stages.input_files import require_data_root
from pipeline.stages.stage_configs import LoadStageConfig

log = logging.getLogger(__name__)


def run(config: LoadStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> StageResult:  # noqa: ARG001
    """Writes cases.json, fingerprint.json, faults.json and location.json; DataError where a fault is fatal."""
    manifest, root = read_manifest(config.data.manifest), require_data_root(config.data)

    examined = check_dataset(
        manifest,
        root,
        runtime,
        grid_tolerance_mm=config.load.grid_tolerance_mm,
        resample_channels=config.load.resample_channels,
        to_train=True,
    )
    write_json(out / "faults.json", as_json(examined.faults))
    log_faults(examined.faults, len(manifest.cases))
    _refuse_faulty_training(manifest, examined.fatal, config, out)
    _say_emptied_folds(manifest, examined.fatal)
    sound = [measured for measured in examined.measured if measured["id"] not in examined.fatal]
    if not any(case.split == "training" for case in manifest.cases):
        raise DataError(f"{config.data.manifest}: has no training case; {TO_TRAIN}")
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
