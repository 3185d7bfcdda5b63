"""Stage `infer`: segments each validation case with the fold that did not see it, and the test cases with all folds."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.base.files import read_json, safe_join
from pipeline.base.machine import Runtime
from pipeline.base.stage import StageResult
from pipeline.base.terminal import progress
from pipeline.config.infer import InferConfig
from pipeline.dataset.loaded_cases import manifest_image_paths, read_cases, recorded_data_root, require_recorded_root
from pipeline.inference.case_journal import CaseJournal
from pipeline.inference.case_table import write_case_table
from pipeline.inference.check_settings import check_inference_settings
from pipeline.inference.output_paths import MAPS, map_path, output_names
from pipeline.inference.postprocessing.component_statistics import LabelPair, measure_case
from pipeline.inference.postprocessing.postprocess import postprocess
from pipeline.inference.postprocessing.select_postprocessing import (
    FEWEST_CASES,
    SelectedSteps,
    dice_after,
    log_selection,
    select_steps,
    verify_selection,
    write_selection,
)
from pipeline.inference.predictor_config import PostprocessConfig
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import segment_in_process
from pipeline.inference.segment_in_subprocess import segment_in_subprocess
from pipeline.inference.segmentation_jobs import Job
from pipeline.io.read_label import read_label
from pipeline.io.write_label import write_label
from pipeline.parallel.map_cases import map_cases
from pipeline.preprocessing.plan import Plan, read_plan
from pipeline.stages.stage_configs import InferStageConfig

log = logging.getLogger(__name__)

ENSEMBLE = "ensemble"
_RAW = "raw"
"""Holds segmentations as the networks made them until postprocessing is chosen and done, whatever comes between."""


def run(config: InferStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> StageResult:
    """Writes `predictions/`, `cases.json`, `cases.csv`, `postprocess.json`; a failed case is named, the others go on.

    Raises ConfigError where postprocessing names a structure that there is not, or the network cannot take the window.
    """
    plan = read_plan(inputs["plan"])
    check_inference_settings(config.infer, plan)
    folds = [str(fold) for fold in read_json(inputs["train"] / "train.json")["folds"]]
    weights = {fold: (inputs["train"] / f"fold_{fold}" / "last.safetensors",) for fold in folds}
    models = {**weights, ENSEMBLE: tuple(path for paths in weights.values() for path in paths)}
    jobs = list_jobs(config.infer, inputs, out, folds)
    made = [replace(job, output=out / _RAW / job.output.name) for job in jobs] if _is_auto(config) else jobs
    journal = CaseJournal(out / "journal.json", request="the stage's own")
    left = journal.left_of(made)
    if len(left) < len(jobs):
        log.info("infer     resumed: %d of %d cases are done", len(jobs) - len(left), len(jobs))
    settings = config.infer.model_copy(update={"backend": "torch"})  # exports are only made for a package
    spec = PredictorSpec(plan, settings, models, runtime.device)
    segment = segment_in_process if runtime.executor == "serial" else segment_in_subprocess
    with progress("infer", len(jobs), len(jobs) - len(left)) as bar:
        for result in segment(left, spec):
            journal.add(result)
            bar.advance(note=result.id)
            if result.status == "failed":
                log.warning("infer     %s failed: %s", result.id, result.message)
    done = {job.id for job in jobs if journal.results[job.id].status == "done"}
    if _is_auto(config):
        raw = {job.id: job.output for job in made if job.id in done}
        _postprocess_all(jobs, raw, inputs, out, plan, runtime)
    else:
        write_selection(
            out, config.infer.postprocess, {"asked": "none" if config.infer.postprocess == "none" else "steps"}
        )
    write_case_table(out, jobs, lambda job: folds if job.model == ENSEMBLE else [job.model], journal.results)
    (out / "journal.json").unlink(missing_ok=True)
    failed = tuple(job.id for job in jobs if journal.results[job.id].status == "failed")
    log.info("infer     %d of %d cases segmented", len(jobs) - len(failed), len(jobs))
    return StageResult(failed)


def list_jobs(settings: InferConfig, inputs: Mapping[str, Path], out: Path, folds: list[str]) -> list[Job]:
    """What there is to segment: with trained folds (or `full`) the cases that none of the used networks trained on."""
    cases, root = read_cases(inputs["load"]), require_recorded_root(inputs["load"])
    images = {case.id: manifest_image_paths(case, root) for case in cases.cases}
    chosen: dict[str, str] = {}
    assignment = read_json(inputs["sample"] / "folds.json")["folds"]
    for fold in folds if "validation" in settings.cases else ():
        if fold != "full":
            chosen |= dict.fromkeys(assignment[int(fold)]["val"], fold)
    if "testing" in settings.cases:
        chosen |= {case.id: ENSEMBLE for case in cases.testing()}
    names = output_names({case: images[case] for case in chosen})
    return [Job(case, tuple(images[case]), out / "predictions" / names[case], model) for case, model in chosen.items()]


def _is_auto(config: InferStageConfig) -> bool:
    return config.infer.postprocess == "auto"


def _postprocess_all(
    jobs: list[Job], raw: Mapping[str, Path], inputs: Mapping[str, Path], out: Path, plan: Plan, runtime: Runtime
) -> None:
    """Chooses steps on the cases of cross-validation and writes every case of `raw` with them into `predictions/`."""
    validated = {job.id: raw[job.id] for job in jobs if job.model != ENSEMBLE and job.id in raw}
    choice, count = _choice(validated, inputs, plan, runtime)
    grounds = {"asked": "auto", "cases": count, "fewest_cases": FEWEST_CASES, "structures": choice.structures}
    write_selection(out, choice.settings, grounds)
    log_selection(choice, count)
    for job in jobs:
        if job.id not in raw:
            continue
        write_label(job.output, postprocess(read_label(raw[job.id]), choice.settings, plan))
        for what in MAPS:
            if (made := map_path(raw[job.id], what)).is_file():
                map_path(job.output, what).parent.mkdir(exist_ok=True)
                made.replace(map_path(job.output, what))
    shutil.rmtree(out / _RAW, ignore_errors=True)


def _choice(
    predictions: Mapping[str, Path], inputs: Mapping[str, Path], plan: Plan, runtime: Runtime
) -> tuple[SelectedSteps, int]:
    """What helps on predictions by networks that did not see the case, and the number of cases with a reference."""
    root, cases = recorded_data_root(inputs["load"]), read_cases(inputs["load"])
    labels = {case.id: safe_join(root, case.label) for case in cases.cases if case.label is not None}
    pairs = [
        LabelPair(case, path, labels[case], cases.grid_tolerance_mm)
        for case, path in predictions.items()
        if case in labels
    ]
    seen = list(map_cases(partial(measure_case, plan=plan), pairs, runtime, "postprocess"))
    choice = select_steps(seen)
    if choice.settings != PostprocessConfig():
        measure = partial(dice_after, settings=choice.settings, plan=plan)
        choice = verify_selection(choice, seen, list(map_cases(measure, pairs, runtime, "postprocess")))
    return choice, len(pairs)
