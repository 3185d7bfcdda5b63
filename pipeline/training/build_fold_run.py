"""Batches, learning rate, validation and records of one fold, as settings and plan ask for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from pipeline.models.learning_rate_schedule import learning_rate
from pipeline.models.networks.build_network import build_network
from pipeline.models.optimizers import base_learning_rate
from pipeline.training.fold_run import FoldRun, Validate
from pipeline.training.loggers.tensorboard_images import ValidationImages
from pipeline.training.select_folds import FoldSplit
from pipeline.training.train_context import TrainContext
from pipeline.training.train_step import AUTOCAST
from pipeline.training.training_batches import make_batch_fn
from pipeline.training.validation import OnValidatedCase, validate
from pipeline.training.validation_schedule import ValidationPlan, plan_validation

log = logging.getLogger(__name__)


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
        draw=make_batch_fn(shop, fold),
        rate=lambda step: learning_rate(config.schedule, highest, step, max_steps),
        validate=make_validate_fn(shop, validation, pictures.take if shown else None),
        pictures=pictures.last,
        validation=validation,
        early_stopping=config.early_stopping,
        data_threads=config.data_threads,
        save_every=config.save_every,
        tensorboard=config.tensorboard,
        mlflow=config.mlflow,
        world=shop.world,
    )


def make_validate_fn(shop: TrainContext, validation: ValidationPlan, look: OnValidatedCase | None) -> Validate:
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
