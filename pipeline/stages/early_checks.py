"""Checks of settings against data and plan, long before the stage that would refuse them: hours of training later would
be late."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.stage_outputs import is_finished
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.pipeline_config import PipelineConfig
from pipeline.dataset.folds import make_folds
from pipeline.dataset.loaded_cases import Cases, read_cases
from pipeline.inference.check_settings import check_inference_settings
from pipeline.preprocessing.plan import read_plan
from pipeline.training.check_train_against_plan import check_against_plan


def check_train(config: PipelineConfig, folder: Path) -> None:
    """Raise what training would refuse, as soon as there is a plan: after all cases are prepared would be late."""
    cases, settings = read_cases(folder / "load").training(), config.train
    folds = make_folds(cases, config.sample.folds, config.sample.seed)
    if is_finished(folder / "train"):  # where its curves went changes nothing any more
        settings = settings.model_copy(update={"mlflow": None})
    check_against_plan(settings, read_plan(folder / "plan"), len(folds["folds"]))


def check_infer(config: PipelineConfig, folder: Path) -> None:
    """Raise what inference would refuse of its settings, as soon as there is a plan."""
    check_inference_settings(config.infer, read_plan(folder / "plan"))


def check_evaluate(config: PipelineConfig, folder: Path) -> None:
    """Raise what evaluation would refuse of its settings, as soon as the cases are known."""
    check_evaluate_settings(config.evaluate, read_cases(folder / "load"))


def check_evaluate_settings(settings: EvaluateConfig, cases: Cases) -> None:
    """Refuse structures and columns that the data does not have (ConfigError)."""
    tolerances = settings.nsd_tolerance_mm if isinstance(settings.nsd_tolerance_mm, dict) else {}
    for name in tolerances:
        if name not in cases.structures:
            hint = did_you_mean(name, list(cases.structures))
            raise ConfigError(f"evaluate.nsd_tolerance_mm: there is no structure {name!r}; {hint}")
    columns = {"split", *(column for case in cases.cases for column in case.extra)}
    for column in () if settings.groups == "auto" else settings.groups:
        if column not in columns:
            raise ConfigError(
                f"evaluate.groups: no case has a column {column!r}; there are: {', '.join(sorted(columns))}"
            )
