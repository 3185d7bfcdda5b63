"""A training so small that it takes no time: a tiny network learns to find a bright box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.models.exponential_moving_average import MovingAverage
from pipeline.models.learning_rate_schedule import poly
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.networks.build_network import build_network
from pipeline.models.optimizer_config import AdamWConfig
from pipeline.models.optimizers import build_optimizer
from pipeline.training.fold_run import FoldRun
from pipeline.training.prefetch import Batch
from pipeline.training.train_step import TrainStep
from pipeline.training.validation_schedule import ValidationPlan

SIZE = (16, 8, 8)


def draw(step: int, batch_size: int = 2) -> Batch:
    """Noise with a bright box somewhere: a function of the step alone."""
    generator = torch.Generator().manual_seed(step)
    image = 0.3 * torch.randn((batch_size, 1, *SIZE), generator=generator)
    label = torch.zeros((batch_size, *SIZE), dtype=torch.uint8)
    for b in range(batch_size):
        x, y, z = (int(torch.randint(0, n - 4, (), generator=generator)) for n in SIZE)
        label[b, x : x + 4, y : y + 4, z : z + 4] = 1
    return Batch(image + label[:, None].float(), label)


def make_train_step(precision: str = "fp32", dropout: float = 0.0, norm: str = "instance", **more) -> TrainStep:
    torch.manual_seed(7)
    settings = {"name": "unet", "channels": (4, 8, 8), "dropout": dropout, "norm": norm}
    network = build_network(settings, 1, 2, SIZE)
    return TrainStep(
        network=network,
        loss=more.pop("loss", FusedDiceCE()),
        optimizer=build_optimizer(AdamWConfig(lr=0.02), network.parameters()),
        average=MovingAverage(network, horizon=3),
        device=torch.device("cpu"),
        precision=precision,
        grad_clip=12.0,
        level_weights=more.pop("level_weights", None),
        **{"micro_batch": 2, **more},
    )


def make_fold_run(folder: Path, max_steps: int = 12, **more) -> FoldRun:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "fold 0",
        "folder": folder,
        "structures": ("box",),
        "seed": 3,
        "max_steps": max_steps,
        "batch_size": 2,
        "draw": draw,
        "rate": lambda step: poly(0.05, step, max_steps),
        "validate": score,
        "validation": ValidationPlan(interval=5, cases=("case",)),
        "save_every": 1e9,
        "tensorboard": False,
    }
    return FoldRun(**{**settings, **more})


def score(weights: dict[str, torch.Tensor], sw_batch_size: int, before_each: Callable[[], None]) -> dict[str, float]:
    """Dice of the weights on one batch that is never trained on."""
    before_each()
    train_step = make_train_step()
    train_step.network.load_state_dict(weights)
    batch = draw(10**6)
    with torch.no_grad():
        pred = train_step.network.eval()(batch.image).argmax(1)
    return {"box": float(2 * (pred * batch.label).sum() / (pred.sum() + batch.label.sum()))}
