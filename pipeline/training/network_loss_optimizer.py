"""Network, loss and optimiser as settings and plan ask for them, before the first step."""

from __future__ import annotations

import logging

import torch

from pipeline.models.checkpoint import load_weights
from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.load_pretrained_weights import load_matching_weights
from pipeline.models.losses.build_loss import build_loss
from pipeline.models.losses.loss_config import is_mean_of_samples
from pipeline.models.networks.bf16_workaround import guard_bf16_convolutions
from pipeline.models.networks.build_network import build_network, check_gives_logits
from pipeline.models.optimizers import build_optimizer
from pipeline.training.check_train_against_plan import require_a_weight_per_level, require_channels_for_all_labels
from pipeline.training.find_pretrained_weights import find_pretrained_weights
from pipeline.training.train_context import TrainContext
from pipeline.training.train_step import TrainStep
from pipeline.training.wrap_network import wrap_network

log = logging.getLogger(__name__)


def make_train_step(shop: TrainContext) -> TrainStep:
    """Network, loss and optimiser as they are before the first step; a function of seed and settings."""
    config, plan = shop.config, shop.plan
    require_channels_for_all_labels(
        {case.id: case.foreground for case in shop.store.cases.values()}, shop.plan.structures
    )
    torch.manual_seed(shop.seed)
    network = build_network(plan.network, len(plan.channels), plan.out_channels, plan.patch_size)
    network = guard_bf16_convolutions(network).to(shop.device)
    if shop.device.type == "cuda":
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    check_gives_logits(network)
    require_a_weight_per_level(config, plan)
    if config.pretrained is not None:
        log.info("%s", load_matching_weights(network, load_weights(find_pretrained_weights(config.pretrained))))
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
        forward=wrap_network(shop, network, loss),
    )
