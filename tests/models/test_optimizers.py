"""Optimisers."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.models.optimizer_config import AdamWConfig, SGDConfig
from pipeline.models.optimizers import base_learning_rate, build_optimizer


def test_optimisers_are_torchs_with_our_settings():
    sgd = build_optimizer(SGDConfig(lr=0.1, momentum=0.9), nn.Linear(2, 2).parameters())
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["nesterov"] and sgd.defaults["momentum"] == 0.9
    adamw = build_optimizer(AdamWConfig(), nn.Linear(2, 2).parameters())
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["lr"] == base_learning_rate(AdamWConfig()) == 0.01
    assert (
        base_learning_rate(AdamWConfig(), "swinunetr") == 0.001
        and base_learning_rate(AdamWConfig(lr=0.2), "swinunetr") == 0.2
    )
