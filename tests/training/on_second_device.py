"""Trains on the CPU and on another device with the store in that device's memory; prints what came of both as JSON.

A program of its own: `python -m tests.training.on_second_device FOLDER`, with FOLDER as `prepare` leaves it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from pipeline.base.files import read_json
from pipeline.config.train import TrainConfig
from pipeline.preprocessing.plan import read_plan
from pipeline.sampling.patch_store import open_store
from pipeline.training.build_fold_run import make_fold_run
from pipeline.training.network_loss_optimizer import make_train_step
from pipeline.training.select_folds import FoldSplit
from pipeline.training.train_context import TrainContext
from pipeline.training.trainer import fit
from tests.training.second_device import CPU, SECOND, operations

_VALUES = {name: {"prob": 1.0} for name in ("blur", "brightness", "contrast", "low_resolution", "gamma")}
_PLACES = {name: {"prob": 1.0} for name in ("affine", "elastic")}
_NEVER = {name: {"prob": 0.0} for name in ("affine", "elastic", "noise")}
# All that augmentation does but noise, of which a seed gives another one on each kind of device.
_ALL = {**_NEVER, **_VALUES, **_PLACES, "flip_prob": 0.5}
# And without what the two devices do with different operations of torch.
_ALIKE = {**_NEVER, **_VALUES, "flip_prob": 0.5}


def mixing_is_refused() -> bool:
    """Whether the second device is one: what it holds does not mix with what the CPU holds."""
    try:
        torch.ones(2, device=SECOND) + torch.ones(2)
    except RuntimeError as error:
        return "two devices" in str(error)
    return False


def work(root: Path, device: torch.device) -> dict:
    """Some batches with all augmentation, and a training of one fold with what both devices do alike."""
    store = open_store(root / "sample" / "store", "auto")
    if device != CPU:
        store = store.to_device(str(device), free_gib=8, reserved_gib=1)
    fold = FoldSplit(
        "0", *(tuple(read_json(root / "sample" / "folds.json")["folds"][0][part]) for part in ("train", "val"))
    )
    out = root / f"on_{device.type}"
    out.mkdir()

    def shop(augment: dict) -> TrainContext:
        config = TrainConfig.model_validate({"augment": augment, "tensorboard": False})
        return TrainContext(config, read_plan(root / "plan"), store, seed=0, device=device)

    draw = make_fold_run(shop(_ALL), fold, out).draw
    batches = [draw(step) for step in range(8)]
    alike = shop(_ALIKE)
    train_step = make_train_step(alike)
    before = operations["drawing"]
    result = fit(make_fold_run(alike, fold, out), train_step)
    return {
        "where": store.where,
        "devices": sorted({str(tensor.device) for batch in batches for tensor in (batch.image, batch.label)}),
        "images": torch.stack([batch.image.cpu() for batch in batches]),
        "labels": torch.stack([batch.label.cpu() for batch in batches]),
        "weights": {name: tensor.cpu() for name, tensor in train_step.network.state_dict().items()},
        "drawn": operations["drawing"] - before,
        "dice": result["dice"],
    }


def main(root: Path) -> None:
    here, there = (work(root, device) for device in (CPU, SECOND))
    print(
        json.dumps(
            {
                "mixing_is_refused": mixing_is_refused(),
                "where": [here["where"], there["where"]],
                "devices": [here["devices"], there["devices"]],
                "operations_while_drawing": [here["drawn"], there["drawn"]],
                "image_difference": float((here["images"] - there["images"]).abs().max()),
                "image_deviation": float(here["images"].std()),
                "labels_equal": float((here["labels"] == there["labels"]).float().mean()),
                "labels": here["labels"].unique().tolist(),
                "weights_equal": all(torch.equal(there["weights"][name], w) for name, w in here["weights"].items()),
                "dice": [here["dice"], there["dice"]],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
