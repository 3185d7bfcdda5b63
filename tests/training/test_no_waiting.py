"""Nothing in a training step makes the CPU wait for a GPU: no value of the device is asked for before it is needed.

Shown on a CPU: operations that hand a value of a tensor to Python, or whose result's size depends on values, are the
same ones there, and each passes torch's dispatcher.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.networks.build_network import build_network
from pipeline.models.optimizer_config import AdamWConfig
from pipeline.models.optimizers import build_optimizer
from pipeline.sampling.augmentation.augment_batch import augment_batch
from pipeline.sampling.augmentation.augmentation_config import AugmentConfig
from pipeline.sampling.augmentation.random_parameters import draw_params
from pipeline.sampling.cut_patches import PatchWithMargin
from pipeline.training.prefetch import Batch
from tests.training.tiny_training import SIZE, make_train_step

WAITING = {"_local_scalar_dense", "item", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "equal"}


class Watch(TorchDispatchMode):
    """Notes the operations that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: set[str] = set()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        self.count += 1
        if name in WAITING or (name in {"index", "index_put", "index_put_"} and _by_mask(args[1])):
            self.waited.add(name)
        return func(*args, **(kwargs or {}))


def _by_mask(indices: list) -> bool:
    """How many there are depends on their values."""
    return any(index is not None and index.dtype == torch.bool for index in indices)


@pytest.mark.parametrize(
    ("wait", "name"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: torch.bincount(x.long()), "bincount"),
        (lambda x: x.unique(), "_unique2"),
    ],
)
def test_waiting_is_noticed(wait, name):
    with Watch() as watch:
        wait(torch.ones(3))
    assert name in watch.waited


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("settings", [{}, {"batch": True, "squared_pred": True}, {"ignore": 255}, {"weighted": True}])
def test_a_step_waits_for_nothing(classes, settings):
    settings = dict(settings)
    weights = torch.rand(classes) + 0.5 if settings.pop("weighted", False) else None
    network = build_network({"name": "unet", "channels": (4, 8, 8)}, 1, classes, SIZE)
    optimizer = build_optimizer(AdamWConfig(lr=0.01), network.parameters())
    loss = FusedDiceCE(class_weights=weights, **settings)
    train_step = make_train_step(loss=loss)
    train_step.network, train_step.optimizer, train_step.average = network, optimizer, None
    batch = Batch(torch.randn(2, 1, *SIZE), torch.randint(0, classes, (2, *SIZE), dtype=torch.uint8))
    with Watch() as watch:
        train_step.step(batch, 0, 0.01)
    assert watch.waited == set() and watch.count > 50


def test_augmenting_waits_for_nothing():
    names = ("affine", "elastic", "noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
    config = AugmentConfig.model_validate({name: {"prob": 1.0} for name in names} | {"flip_prob": 1.0})
    whole = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 20, 18, 16)).astype(np.float32))
    samples = [PatchWithMargin(whole, (whole[0] > 0).to(torch.uint8), (2, 3, 4))] * 2
    changes = [draw_params(config, 0, b, 2, (0, 1, 2), (1.0, 1.0, 2.0), (12, 10, 8)) for b in range(2)]
    with Watch() as watch:
        augment_batch(samples, changes, (12, 10, 8), (1.0, 1.0, 2.0), swaps=[(1, 2)])
    assert watch.waited == set() and watch.count > 50
