"""Table of the stages: what each reads, what it writes, and the module that does its work.

Who depends on whom stands here and nowhere else. The modules are imported when their stage is due, because they load
torch and MONAI; the checks and the digests of files that every run needs are light.
"""

from __future__ import annotations

from pipeline.base.stage import Stage, imported_when_run
from pipeline.stages.early_checks import check_evaluate, check_infer, check_train
from pipeline.stages.input_files import changed_data_files, digest_data_files, digest_pretrained_weights
from pipeline.stages.stage_configs import (
    EvaluateStageConfig,
    InferStageConfig,
    LoadStageConfig,
    PackageStageConfig,
    PlanStageConfig,
    ReportStageConfig,
    SampleStageConfig,
    TrainStageConfig,
)

STEP_COST = {
    "loss": "train.loss",
    "optimizer": "train.optimizer.name",
    "num_threads": "train.num_threads",
    "compile": "train.compile",
    "validation_share": "train.validation.share",
    "validation_interval": "train.validation.interval",
    "validation_cases": "train.validation.cases",
    "validation_overlap": "train.validation.overlap",
}
"""Keys of `train` that decide how long a step takes. Like the speed of the machine they are measured once, when a plan
is made: a finished plan is not made again because of them."""

LOAD = Stage(
    name="load",
    version=8,
    config=LoadStageConfig,
    reads={"data": "data", "load": "load"},
    inputs=(),
    outputs=("cases.json", "fingerprint.json", "faults.json", "location.json"),
    run=imported_when_run("pipeline.stages.load"),
    not_hashed={"location.json": ()},
    sources=digest_data_files,
    changed_since=changed_data_files,
)

PLAN = Stage(
    name="plan",
    version=5,
    config=PlanStageConfig,
    reads={
        "plan": "plan",
        "network": "train.network",
        "budget": "train.budget",
        "max_steps": "train.max_steps",
        "max_epochs": "train.max_epochs",
        "accumulate": "train.accumulate",
        **STEP_COST,
        "device": "device",
    },
    inputs=("load",),
    outputs=("plan.json",),
    run=imported_when_run("pipeline.stages.plan"),
    not_hashed={"plan.json": ("predicted", "reasons")},
    ignored_keys=tuple(STEP_COST),
)

SAMPLE = Stage(
    name="sample",
    version=2,
    config=SampleStageConfig,
    reads={"sample": "sample"},
    inputs=("load", "plan"),
    outputs=("folds.json", "store/store.json", "store/*.image.npy", "store/*.locations.npz", "preview.png"),
    run=imported_when_run("pipeline.stages.sample"),
    not_hashed={"preview.png": ()},
)

TRAIN = Stage(
    name="train",
    version=3,
    config=TrainStageConfig,
    reads={"train": "train", "seed": "seed"},
    inputs=("sample", "plan"),
    outputs=("train.json", "fold_*/last.safetensors", "fold_*/best.safetensors", "fold_*/metrics.csv"),
    run=imported_when_run("pipeline.stages.train"),
    not_hashed={"*/timing.csv": (), "*/log.txt": (), "*/tensorboard/*": ()},
    resumes=True,
    keep_previous=True,
    sources=digest_pretrained_weights,
    check=check_train,
    check_before=("sample",),
    ignored_keys=("train.save_every", "train.data_threads", "train.tensorboard", "train.mlflow"),
)

INFER = Stage(
    name="infer",
    version=3,
    config=InferStageConfig,
    reads={"infer": "infer"},
    inputs=("train", "plan", "load", "sample"),
    outputs=("predictions", "cases.json", "cases.csv", "postprocess.json"),
    run=imported_when_run("pipeline.stages.infer"),
    not_hashed={"cases.csv": ()},
    resumes=True,
    check=check_infer,
    check_before=("sample", "train"),
)

EVALUATE = Stage(
    name="evaluate",
    version=3,
    config=EvaluateStageConfig,
    reads={"evaluate": "evaluate"},
    inputs=("infer", "load"),
    outputs=("per_case.csv", "summary.json"),
    run=imported_when_run("pipeline.stages.evaluate"),
    check=check_evaluate,
    check_before=("plan", "train"),
)

REPORT = Stage(
    name="report",
    version=3,
    config=ReportStageConfig,
    reads={"report": "report", "name": "name", "seed": "seed"},
    inputs=("load", "plan", "sample", "train", "infer", "evaluate"),
    outputs=("report.html",),
    run=imported_when_run("pipeline.stages.report"),
)

PACKAGE = Stage(
    name="package",
    version=3,
    config=PackageStageConfig,
    reads={"package": "package", "inference": "infer"},
    inputs=("train", "plan", "load", "infer", "evaluate"),
    outputs=("package.json", "weights/*.safetensors", "plan.json", "labels.json", "MODEL_CARD.md"),
    run=imported_when_run("pipeline.stages.package"),
)

STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (LOAD, PLAN, SAMPLE, TRAIN, INFER, EVALUATE, REPORT, PACKAGE)
}


def ancestors(stage: Stage) -> list[str]:
    names: list[str] = []
    for name in stage.inputs:
        names += [*ancestors(STAGES[name]), name]
    return names
