"""The whole configuration: one section per stage."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from pipeline.base.strict_model import StrictModel
from pipeline.config.data import DataConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.executor import ExecutorConfig
from pipeline.config.infer import InferConfig
from pipeline.config.load import LoadConfig
from pipeline.config.package import PackageConfig
from pipeline.config.plan import PlanConfig
from pipeline.config.report import ReportConfig
from pipeline.config.sample import SampleConfig
from pipeline.config.train import TrainConfig


class PipelineConfig(StrictModel):
    """A complete run."""

    name: str
    """Names the run; its folder is runs/NAME unless --out is given."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Every random number follows from it."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto, cuda, cuda:N or cpu."""
    data: DataConfig
    executor: ExecutorConfig = ExecutorConfig()
    load: LoadConfig = LoadConfig()
    plan: PlanConfig = PlanConfig()
    sample: SampleConfig = SampleConfig()
    train: TrainConfig = TrainConfig()
    infer: InferConfig = InferConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    package: PackageConfig = PackageConfig()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                "must be usable as a folder name: letters, digits, '.', '_' and '-', for instance liver_ct"
            )
        return name

    @field_validator("infer")
    @classmethod
    def _mirrors_what_training_flips(cls, infer: InferConfig, info: ValidationInfo) -> InferConfig:
        train: TrainConfig | None = info.data.get("train")
        if infer.mirror and train is not None and not (train.augment.enabled and train.augment.flip_prob):
            raise ValueError(
                "mirror: true needs a training that flips, but train.augment.flip_prob or train.augment.enabled turns "
                "that off; use mirror: false"
            )
        return infer


def value_at(config: BaseModel, key_path: str) -> Any:
    """The value at a dotted key path of a validated configuration."""
    value: Any = config
    for key in key_path.split("."):
        value = getattr(value, key)
    return value
