"""From settings, plan and patch store to what the loop needs: a learner and a course."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.machine import usable_cores
from pipeline.config.train import TrainConfig
from pipeline.dataset.label_encoding import ignore_index
from pipeline.models.checkpoint import load_matching_weights, load_weights
from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.learning_rate_schedule import base_learning_rate, learning_rate
from pipeline.models.losses.build_loss import build_loss, is_mean_of_samples, sums_over_batch
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.networks.bf16_workaround import guard_bf16_convolutions
from pipeline.models.networks.build_network import build_network, check_gives_logits
from pipeline.models.optimizers import build_optimizer
from pipeline.preprocessing.plan import Plan
from pipeline.sampling.augmentation.augment_batch import augment_batch, draw_params
from pipeline.sampling.augmentation.spatial_transforms import margin
from pipeline.sampling.patch_store import PatchStore
from pipeline.sampling.patches import NO_MARGIN, cut_with_margin, draw_locations
from pipeline.training.compile_network import compile_or_fallback
from pipeline.training.config_checks import pretrained_weights, require_a_weight_per_level, structure_weights
from pipeline.training.distributed import SINGLE_PROCESS, World, processes_on_this_machine
from pipeline.training.prefetch import Batch
from pipeline.training.select_folds import FoldSplit
from pipeline.training.tensorboard_images import ValidationImages
from pipeline.training.train_step import AUTOCAST, TrainStep
from pipeline.training.trainer import FoldRun, Validate
from pipeline.training.validation import LabelTables, OnValidatedCase, ValidationPlan, plan_validation, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainContext:
    """What all folds have in common."""

    config: TrainConfig
    plan: Plan
    store: PatchStore
    seed: int
    device: torch.device
    world: World = SINGLE_PROCESS

    @property
    def labelling(self) -> LabelTables:
        """How stored labels are read: ignored voxels hold one value."""
        plan = self.plan
        ignore = None if plan.ignore_value is None else ignore_index(plan.structures, plan.overlapping)
        return LabelTables(tuple(plan.structures), plan.overlapping, ignore)

    @property
    def batch_size(self) -> int:
        """Patches per step and process."""
        return self.plan.batch_size * self.config.accumulate


def set_up_torch(config: TrainConfig, plan: Plan, device: torch.device) -> None:
    """Threads and determinism for the whole process; processes on one machine share its cores."""
    cores = plan.num_threads or usable_cores()
    torch.set_num_threads(config.num_threads or max(cores // processes_on_this_machine(), 1))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products of matrices differ from run to run
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic


def make_train_step(shop: TrainContext) -> TrainStep:
    """Network, loss and optimiser as they are before the first step; a function of seed and settings."""
    config, plan = shop.config, shop.plan
    _require_channels_for_all_labels(shop)
    torch.manual_seed(shop.seed)
    network = build_network(plan.network, len(plan.channels), plan.out_channels, plan.patch_size)
    network = guard_bf16_convolutions(network).to(shop.device)
    if shop.device.type == "cuda":
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    check_gives_logits(network)
    require_a_weight_per_level(config, plan)
    if config.pretrained is not None:
        log.info("%s", load_matching_weights(network, load_weights(pretrained_weights(config.pretrained))))
    loss = build_loss(config.loss, plan.out_channels, plan.overlapping, plan.class_weights, shop.labelling.ignore).to(
        shop.device
    )
    horizon = None if config.ema is None else config.ema * plan.max_steps
    return TrainStep(
        network=network,
        loss=loss,
        optimizer=build_optimizer(config.optimizer, network.parameters()),
        average=None if horizon is None else MovingAverage(network, horizon),
        device=shop.device,
        precision=plan.precision,
        grad_clip=config.grad_clip,
        level_weights=config.deep_supervision_weights,
        micro_batch=plan.batch_size,
        divisible=is_mean_of_samples(config.loss, shop.labelling.ignore),
        distributed=shop.world.size > 1,
        forward=_wrap_network(shop, network, loss),
    )


def _wrap_network(shop: TrainContext, network: nn.Module, loss: nn.Module) -> Callable[[torch.Tensor], Any] | None:
    """The network as training calls it: compiled, with gradients averaged over the processes, or as it is (None)."""
    if shop.world.size > 1:
        if sums_over_batch(shop.config.loss) and not isinstance(loss, FusedDiceCE):
            own_sums = "batch: false" if getattr(shop.config.loss, "batch", False) else "another loss"
            instead = own_sums if shop.plan.overlapping else f"dice_ce without one_vs_rest, {own_sums}"
            raise ConfigError(
                f"train.loss {shop.config.loss.name} would sum over the batch within each process only: dice_ce with "
                f"softmax alone sums across processes; use {instead}, or one process"
            )
        network = nn.parallel.DistributedDataParallel(network)
    if shop.config.compile:
        return compile_or_fallback(network)
    return network if shop.world.size > 1 else None


def make_fold_run(shop: TrainContext, fold: FoldSplit, folder: Path) -> FoldRun:
    """Batches, rate, validation and records of one fold."""
    config, plan, max_steps = shop.config, shop.plan, shop.plan.max_steps
    validation = plan_validation(
        {case: shop.store.shape(case) for case in fold.val},
        plan.patch_size,
        shop.batch_size,
        max_steps,
        config.validation.share,
        config.validation.overlap,
        config.validation.interval,
        config.validation.cases,
    )
    if validation.overlap != config.validation.overlap:
        case = ", ".join(validation.cases)
        log.info("validation is of %s, its windows side by side: more would not fit into its share", case)
    highest = base_learning_rate(config.optimizer, plan.network["name"])
    pictures, shown = ValidationImages(), config.tensorboard and shop.world.is_first
    return FoldRun(
        name=f"fold {fold.name}",
        folder=folder,
        structures=tuple(plan.structures),
        seed=shop.seed,
        max_steps=max_steps,
        batch_size=shop.batch_size * shop.world.size,
        draw=_batch_fn(shop, fold),
        rate=lambda step: learning_rate(config.schedule, highest, step, max_steps),
        validate=_validate_fn(shop, validation, pictures.take if shown else None),
        pictures=pictures.last,
        validation=validation,
        early_stopping=config.early_stopping,
        data_threads=config.data_threads,
        save_every=config.save_every,
        tensorboard=config.tensorboard,
        mlflow=config.mlflow,
        world=shop.world,
    )


def _require_channels_for_all_labels(shop: TrainContext) -> None:
    """Refuses a store with more structures than the plan's network has channels for."""
    for case in shop.store.cases.values():
        if case.foreground and max(case.foreground) > len(shop.plan.structures):
            raise DataError(
                f"case {case.id} holds structure {max(case.foreground)}, but the network has channels for "
                f"{len(shop.plan.structures)}: {', '.join(shop.plan.structures)}; run plan and sample again"
            )


def _batch_fn(shop: TrainContext, fold: FoldSplit) -> Callable[[int], Batch]:
    """The batch of a step: drawn from the store, moved to the device and augmented there."""
    config, plan = shop.config, shop.plan
    weights = structure_weights(config.oversample_weights or {}, plan.structures)

    def draw(step: int) -> Batch:
        part = step * shop.world.size + shop.world.rank  # parts of one batch, as if it had been drawn whole
        places = draw_locations(
            shop.store, fold.train, plan.patch_size, shop.batch_size, shop.seed, part, config.oversample, weights
        )
        changes = [
            draw_params(
                config.augment,
                shop.seed,
                part * shop.batch_size + position,
                len(plan.channels),
                plan.mirror_axes,
                plan.spacing_mm,
                plan.patch_size,
                plan.swap_indices,
            )
            for position in range(shop.batch_size)
        ]
        samples = []
        for place, change in zip(places, changes, strict=True):
            around = margin(change.spatial, plan.patch_size, plan.spacing_mm) if change else NO_MARGIN
            samples.append(cut_with_margin(shop.store, place, plan.patch_size, around).to(shop.device))
        linear_label = config.augment.label_interpolation == "linear"
        return Batch(
            *augment_batch(
                samples,
                changes,
                plan.patch_size,
                plan.spacing_mm,
                plan.swap_indices,
                plan.overlapping,
                linear_label,
            )
        )

    return draw


def _validate_fn(shop: TrainContext, validation: ValidationPlan, look: OnValidatedCase | None) -> Validate:
    """Mean Dice per structure of given weights on whole cases, with a network of its own."""
    plan, dtype = shop.plan, AUTOCAST[shop.plan.precision]
    network: nn.Module = build_network(plan.network, len(plan.channels), plan.out_channels).to(shop.device).eval()

    def logits(image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(shop.device.type, dtype, enabled=dtype is not None):
            return network(image)

    def cases(before_each: Callable[[], None]) -> Iterator[str]:
        for case in validation.cases:
            before_each()
            yield case

    def score(
        weights: Mapping[str, torch.Tensor], sw_batch_size: int, before_each: Callable[[], None]
    ) -> dict[str, float]:
        network.load_state_dict(weights)
        return validate(
            logits,
            shop.store,
            cases(before_each),
            shop.labelling,
            plan.patch_size,
            shop.device,
            validation.overlap,
            sw_batch_size,
            look,
        )

    return score
