"""Stage `infer`: segments each validation case with the fold that did not see it, and the test cases with all folds."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.base.runtime import Runtime
from pipeline.base.stage import Outcome, Stage
from pipeline.base.strict import Strict
from pipeline.inference.settings import InferenceSettings

if TYPE_CHECKING:
    from pipeline.inference.jobs import CaseResult, Job

log = logging.getLogger(__name__)

ENSEMBLE = "ensemble"


class InferConfig(InferenceSettings):
    """How trained networks are applied, and to which cases."""

    cases: tuple[Literal["validation", "testing"], ...] = ("validation", "testing")
    """validation: each by the fold that did not train on it. testing: by all trained folds together."""


class InferReads(Strict):
    """All of the configuration that this stage reads."""

    infer: InferConfig


def run(config: InferReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> Outcome:
    """Writes `predictions/`, `cases.json` and `cases.csv`; a case that fails is named and the others go on."""
    from pipeline.base.files import read_json
    from pipeline.base.terminal import progress
    from pipeline.data.plan import read_plan
    from pipeline.inference.jobs import Journal
    from pipeline.serving.segmenting import segment_here, segment_isolated
    from pipeline.serving.spec import EngineSpec

    plan = read_plan(inputs["plan"])
    folds = [str(fold) for fold in read_json(inputs["train"] / "train.json")["folds"]]
    weights = {fold: (inputs["train"] / f"fold_{fold}" / "last.safetensors",) for fold in folds}
    models = {**weights, ENSEMBLE: tuple(path for paths in weights.values() for path in paths)}
    jobs = list_jobs(config.infer, inputs, out, folds)
    journal = Journal(out / "journal.json", request="the stage's own")
    left = journal.left_of(jobs)
    if len(left) < len(jobs):
        log.info("infer     resumed: %d of %d cases are done", len(jobs) - len(left), len(jobs))
    spec = EngineSpec(plan, config.infer, models, runtime.device)
    segment = segment_here if runtime.executor == "serial" else segment_isolated
    with progress("infer", len(jobs), len(jobs) - len(left)) as bar:
        for result in segment(left, spec):
            journal.add(result)
            bar.advance(note=result.id)
            if result.status == "failed":
                log.warning("infer     %s failed: %s", result.id, result.message)
    _write_cases(out, jobs, folds, journal.results)
    (out / "journal.json").unlink(missing_ok=True)
    failed = tuple(job.id for job in jobs if journal.results[job.id].status == "failed")
    log.info("infer     %d of %d cases segmented", len(jobs) - len(failed), len(jobs))
    return Outcome(failed)


def list_jobs(settings: InferConfig, inputs: Mapping[str, Path], out: Path, folds: list[str]) -> list[Job]:
    """What there is to segment: with trained folds (or `full`) the cases that none of the used networks trained on."""
    from pipeline.base.files import read_json
    from pipeline.data.cases import data_root, image_paths, read_cases
    from pipeline.inference.jobs import Job
    from pipeline.inference.outputs import output_names

    cases, root = read_cases(inputs["load"]), data_root(inputs["load"])
    images = {case.id: image_paths(case, root) for case in cases.cases}
    chosen: dict[str, str] = {}
    assignment = read_json(inputs["sample"] / "folds.json")["folds"]
    for fold in folds if "validation" in settings.cases else ():
        if fold != "full":
            chosen |= dict.fromkeys(assignment[int(fold)]["val"], fold)
    if "testing" in settings.cases:
        chosen |= {case.id: ENSEMBLE for case in cases.testing()}
    names = output_names({case: images[case] for case in chosen})
    return [Job(case, tuple(images[case]), out / "predictions" / names[case], model) for case, model in chosen.items()]


def _write_cases(out: Path, jobs: list[Job], folds: list[str], results: Mapping[str, CaseResult]) -> None:
    from pipeline.base.files import write_json

    (out / "predictions").mkdir(exist_ok=True)
    entries = []
    with (out / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "fold", "status", "seconds", "peak_memory_gib", "uncertainty", "message"])
        for job in jobs:
            result = results[job.id]
            used = folds if job.model == ENSEMBLE else [job.model]
            done = result.status == "done"
            entries.append(
                {
                    "id": job.id,
                    "status": result.status,
                    "folds": [int(fold) if fold.isdigit() else fold for fold in used],
                    "prediction": job.output.relative_to(out).as_posix() if done else None,
                    "message": result.message,
                }
            )
            measured = f"{result.seconds:.3f}", f"{result.peak_memory_gib:.3f}"
            score = "" if result.score is None else f"{result.score:.6f}"
            table.writerow([job.id, "+".join(used), result.status, *measured, score, result.message])
    write_json(out / "cases.json", {"cases": entries})


STAGE = Stage(
    name="infer",
    version=1,
    config=InferReads,
    reads={"infer": "infer"},
    inputs=("train", "plan", "load", "sample"),
    promises=("predictions", "cases.json", "cases.csv"),
    run=run,
    undigested={"cases.csv": ()},
    resumes=True,
)
