"""Patches per second of nnU-Net's own trainer on batches that are there already; run by the peer's own Python.

    PEER_PYTHON benchmarks/nnunet_step.py --batch 7 --width 32 --threads 2 --seconds 20 [--device cuda]

`nnUNetTrainer.train_step` as nnU-Net 2.8.1 calls it, with the network and the plan it makes for Task04 hippocampus
(see `nnunet_model.py`). Its loading and augmentation, which on a CPU want the same cores, are left out: what is
measured is the most that its training reaches. Prints [patches per second, seconds of the first step].
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=7)
    parser.add_argument("--width", type=int, default=32)
    arguments, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = str(Path(folder) / name)
        stored = Path(folder) / "preprocessed" / "Dataset004_Hippocampus" / "nnUNetPlans_3d_fullres"
        stored.mkdir(parents=True)
        (stored / "case.b2nd").touch()  # it looks at how cases are stored, and then at none of them
        print(json.dumps(measured(arguments)))


def measured(arguments: argparse.Namespace) -> tuple[float, float]:
    """Patches per second after three steps, and the seconds of the first."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    trainer = trainer_of(arguments)
    batch = batch_for(trainer, arguments.batch)
    first = timed(lambda: trainer.train_step(batch))
    for _ in range(2):
        trainer.train_step(batch)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < arguments.seconds:
        trainer.train_step(batch)  # returns the loss as a number, so the device is done
        steps += 1
    return steps * arguments.batch / (time.perf_counter() - begin), first


def trainer_of(arguments: argparse.Namespace) -> Any:
    import torch
    from nnunet_model import DATASET, plans
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plan = plans([arguments.width * 2**level for level in range(4)])
    plan = {**plan, "continue_training": False}
    plan["configurations"]["3d_fullres"]["batch_size"] = arguments.batch
    trainer = nnUNetTrainer(plan, "3d_fullres", 0, DATASET, device=torch.device(arguments.device))
    trainer.initialize()
    trainer.network.train()
    return trainer


def batch_for(trainer: Any, size: int) -> dict[str, Any]:
    """Noise, and labels at the size of each of the network's outputs."""
    import torch
    from nnunet_model import PATCH

    image = torch.randn(size, 1, *PATCH)
    with torch.no_grad():
        outputs = trainer.network(image.to(trainer.device))
    label = [torch.randint(0, 3, (size, 1, *output.shape[2:])).float() for output in outputs]
    return {"data": image, "target": label}


def timed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
