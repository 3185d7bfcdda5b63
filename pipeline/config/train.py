"""All settings of training. Without torch: configurations are read before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.base.strict_model import StrictModel
from pipeline.models.losses.loss_config import DiceCEConfig, LossConfig
from pipeline.models.networks.network_config import NetworkConfig, UNetConfig
from pipeline.models.optimizer_config import AdamWConfig, OptimizerConfig
from pipeline.models.schedule_config import PolyConfig, ScheduleConfig
from pipeline.sampling.augmentation.augmentation_config import AugmentConfig


class ValidationConfig(StrictModel):
    """Validation on whole cases while training: it chooses `best`, and the curves come from it.

    What is left open is decided from step and window counts, never from the clock, so that runs can be repeated.
    """

    interval: int | None = Field(default=None, ge=1)
    """Steps between validations; null: as many as `share` allows, at most 20 over the run."""
    cases: int | None = Field(default=None, ge=1)
    """Validation cases used each time, evenly picked; null: as many as `share` allows."""
    share: float = Field(default=0.05, gt=0, le=1)
    """Share of the training's work that validation may take where it decides."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Overlap of its sliding window."""


class EarlyStoppingConfig(StrictModel):
    """Stop when validation does not get better. A schedule that ends early is not the schedule that was planned."""

    patience: int = Field(default=5, ge=1)
    """Validations without a better mean Dice before training stops."""
    min_delta: float = Field(default=0.001, ge=0)
    """What counts as better."""


class TrainConfig(StrictModel):
    """How the network is trained. Steps, batch, patch, precision and width left open here are decided by planning."""

    network: NetworkConfig = UNetConfig()
    """name: unet, vnet, segresnet or swinunetr, with its settings."""
    loss: LossConfig = DiceCEConfig()
    """name: dice_ce, dice, ce, dice_focal, dice_topk, focal, generalized_dice or tversky, with its settings."""
    optimizer: OptimizerConfig = AdamWConfig()
    """name: adamw or sgd."""
    schedule: ScheduleConfig = PolyConfig()
    """name: poly or cosine, over step / max_steps."""
    budget: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?\s*(s|m|h|d)$")
    """Time for training one fold, its validation included, such as 30m or 2h; planning turns it into steps."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps, instead of a budget."""
    max_epochs: int | None = Field(default=None, ge=1)
    """Epochs, instead of a budget: as many patches as there are training cases make one."""
    folds: tuple[Annotated[int, Field(ge=0)], ...] | Literal["all", "full"] = (0,)
    """Folds to train, one after the other or on several GPUs at a time: a list, all, or full (one model on every case).
    """
    augment: AugmentConfig = AugmentConfig()
    oversample: float = Field(default=0.33, ge=0, le=1)
    """Share of patches that are centred on a structure, each structure as often as the others."""
    oversample_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """How often structures are chosen for that, by name; 1 for those not named; null: 1 for all."""
    accumulate: int = Field(default=1, ge=1)
    """Planned batches per step, their gradients averaged."""
    grad_clip: float | None = Field(default=12.0, gt=0)
    """Largest norm of the gradient; null: no limit."""
    ema: float | None = Field(default=0.02, gt=0, le=1)
    """Horizon of the moving average of the weights as a share of all steps; null: none. Validated, saved and packaged
    weights are the averaged ones."""
    deep_supervision_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Weights of the losses at the network's levels, finest first, scaled to a sum of 1; null: 1, 1/2, 1/4, ..."""
    validation: ValidationConfig = ValidationConfig()
    early_stopping: EarlyStoppingConfig | None = None
    pretrained: Path | None = None
    """A package or a safetensors file to begin from; what fits is taken over and the rest named."""
    data_threads: int = Field(default=1, ge=1)
    """Threads that draw batches ahead; the patches are the same for any number."""
    save_every: float = Field(default=30.0, gt=0)
    """Seconds between saves of the state, up to a minute where saving is slow: what a kill can cost."""
    deterministic: bool = False
    """On a GPU: the same bits each time, at the price of speed. On a CPU it is so anyway, with as many threads."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads on a CPU; null: as planned."""
    compile: bool = False
    """Compile the network (torch.compile); falls back with a sentence where it cannot. On one CPU it won 2 % and cost
    20 s, on another it lost 10 % and cost 34 s (benchmarks/records); on a GPU it was never measured."""
    tensorboard: bool = True
    mlflow: str | None = None
    """Tracking URI of an MLflow server, such as http://localhost:5000; needs the extra mlflow."""

    @field_validator("deep_supervision_weights")
    @classmethod
    def _some_weight(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not any(weights):
            raise ValueError(f"{list(weights)} has no weight above 0, so that nothing would be learned")
        return weights

    @field_validator("budget")
    @classmethod
    def _some_time(cls, budget: str | None) -> str | None:
        if budget is not None and float(budget.rstrip("smhd ")) == 0:
            raise ValueError("is no time; write for instance 90s, 30m, 2h or 1d")
        return budget

    @field_validator("early_stopping")
    @classmethod
    def _something_to_stop_by(
        cls, early_stopping: EarlyStoppingConfig | None, info: ValidationInfo
    ) -> EarlyStoppingConfig | None:
        if early_stopping is not None and info.data.get("folds") == "full":
            raise ValueError(
                "goes by validation cases, of which train.folds: full has none; leave it out, or train folds that "
                "validate, such as [0]"
            )
        return early_stopping

    @field_validator("folds")
    @classmethod
    def _at_least_one(cls, folds: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if not folds:
            raise ValueError("needs at least one fold, for instance [0]")
        if isinstance(folds, tuple) and len(set(folds)) != len(folds):
            raise ValueError(f"names a fold twice: {list(folds)}")
        return folds
