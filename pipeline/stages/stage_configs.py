"""Settings that each stage reads of the configuration: one frozen value per stage, which is part of its request."""

from __future__ import annotations

from pipeline.base.strict_model import StrictModel
from pipeline.config.data import DataConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.infer import InferConfig
from pipeline.config.load import LoadConfig
from pipeline.config.package import PackageConfig
from pipeline.config.plan import PlanConfig, StepCostConfig
from pipeline.config.report import ReportConfig
from pipeline.config.sample import SampleConfig
from pipeline.config.train import TrainConfig
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.models.networks.network_config import NetworkConfig


class LoadStageConfig(StrictModel):
    """Settings of stage `load`."""

    data: DataConfig
    load: LoadConfig


class PlanStageConfig(StepCostConfig):
    """Settings of stage `plan`, with what makes a training step longer."""

    plan: PlanConfig
    network: NetworkConfig
    budget: str | None
    max_steps: int | None
    max_epochs: int | None
    accumulate: int
    device: str


class SampleStageConfig(StrictModel):
    """Settings of stage `sample`."""

    sample: SampleConfig


class TrainStageConfig(StrictModel):
    """Settings of stage `train`."""

    train: TrainConfig
    seed: int


class InferStageConfig(StrictModel):
    """Settings of stage `infer`."""

    infer: InferConfig


class EvaluateStageConfig(StrictModel):
    """Settings of stage `evaluate`."""

    evaluate: EvaluateConfig


class ReportStageConfig(StrictModel):
    """Settings of stage `report`."""

    report: ReportConfig
    name: str
    seed: int


class PackageStageConfig(StrictModel):
    """Settings of stage `package`."""

    package: PackageConfig
    inference: PredictorConfig
