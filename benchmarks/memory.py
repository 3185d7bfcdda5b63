"""Predicted against measured peak memory of training, for plans of several networks, sizes and precisions.

    python benchmarks/memory.py [--plans NAME ...] [--record FILE] [--quick]

Each plan is trained for two steps by stage `train` itself (drawing ahead, augmentation, moving average, saving, a
validation) on cases made of noise, in a process of its own, whose largest resident set is what is measured. The
peak does not depend on how busy the machine is. --quick: two small plans.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

STEPS, CASES = 2, 3
LEVELS_4 = {"strides": [[1, 1, 1], *[[2, 2, 2]] * 3], "kernel_size": [[3, 3, 3]] * 4}
OPENKBP = {  # as planned for data_manifests/openkbp.json: 4.7 × 4.7 × 2.5 mm, 7 structures
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
    "kernel_size": [[3, 3, 3]] * 5,
}
THICK = {  # 0.8 × 0.8 × 4 mm: slices that are not mixed, and halved later
    "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]],
    "kernel_size": [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
}


@dataclass(frozen=True)
class Planned:
    """A plan to train."""

    network: dict[str, Any]
    patch: tuple[int, int, int]
    batch: int
    precision: Literal["fp32", "bf16", "fp16"]
    channels: int = 1
    structures: int = 2


def unet(width: int, layout: dict[str, Any], **more: Any) -> dict[str, Any]:
    channels = [min(width * 2**level, 320) for level in range(len(layout["strides"]))]
    return {"name": "unet", "channels": channels, **layout, **more}


PLANS = {
    "next to nothing": Planned(unet(4, LEVELS_4), (16, 16, 16), 1, "fp32"),
    "next to nothing, MONAI": Planned({"name": "segresnet", "init_filters": 8}, (16, 16, 16), 1, "fp32"),
    "hippocampus": Planned(unet(16, LEVELS_4), (40, 56, 40), 2, "bf16"),
    "hippocampus-fp32": Planned(unet(16, LEVELS_4), (40, 56, 40), 4, "fp32"),
    "unet-32": Planned(unet(32, LEVELS_4), (64, 64, 64), 4, "bf16"),
    "unet-32-fp32": Planned(unet(32, LEVELS_4), (64, 64, 64), 2, "fp32", channels=3),
    "vnet": Planned({"name": "vnet"}, (48, 64, 48), 2, "bf16"),
    "segresnet": Planned({"name": "segresnet", "init_filters": 16}, (64, 64, 64), 2, "fp32", channels=3),
    "openkbp": Planned(unet(16, OPENKBP), (40, 40, 80), 2, "bf16", structures=7),
    "thick-slices": Planned(unet(32, THICK), (96, 96, 16), 2, "bf16", structures=7),
    "residual": Planned(unet(16, LEVELS_4, residual=True), (56, 56, 56), 3, "fp32"),
    "swinunetr": Planned({"name": "swinunetr"}, (64, 64, 64), 1, "fp32"),
}
QUICK = ("hippocampus", "openkbp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record", type=Path, help="write the table into this file as well")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure)))
        return
    rows = [row(name) for name in (QUICK if arguments.quick else arguments.plans)]
    columns = ("plan", "network", "patch", "batch", "precision", "predicted GiB", "measured GiB", "ratio")
    from recording import write_record

    from pipeline.base.terminal import format_table

    print(format_table(columns, rows))
    inside = sum(0.8 <= float(entry[-1]) <= 1.2 for entry in rows)
    said = f"{inside} of {len(rows)} within 20 %"
    print(said)
    if arguments.record:
        write_record(arguments.record, "Peak memory of training, predicted and measured", columns, rows, [said])


def row(name: str) -> tuple[str, ...]:
    """Predicts and measures one plan; says what it found at once, since each takes a while."""
    planned = PLANS[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", name]
        environment = {**os.environ, "TMPDIR": folder}
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(output.stdout.splitlines()[-1])
    ratio = found["predicted"] / found["measured"]
    print(f"{name}: {json.dumps(found)} ratio {ratio:.2f}", file=sys.stderr, flush=True)
    return (
        name,
        f"{planned.network['name']} {'-'.join(map(str, planned.network.get('channels', [])))}".strip(),
        "×".join(map(str, planned.patch)),
        str(planned.batch),
        planned.precision,
        f"{found['predicted']:.2f}",
        f"{found['measured']:.2f}",
        f"{ratio:.2f}",
    )


def measured(name: str) -> dict[str, float]:
    """Trains one plan in this process; GiB predicted, measured, and of the process before it began."""
    from pipeline.base.heap import keep_freed_memory

    keep_freed_memory()
    import pipeline.training.build_fold_run  # noqa: F401, so that the process as it is before training has all of it
    from pipeline.base.machine import Runtime
    from pipeline.base.process_memory import peak_memory_gib
    from pipeline.config.train import TrainConfig
    from pipeline.stages import train
    from pipeline.stages.stage_configs import TrainStageConfig

    planned = PLANS[name]
    inputs = prepare(planned, Path(tempfile.mkdtemp()))
    before = peak_memory_gib()
    reads = TrainStageConfig(train=TrainConfig(max_steps=STEPS, tensorboard=True), seed=0)
    out = inputs["plan"].parent / "train"
    out.mkdir()
    train.run(reads, inputs, out, Runtime(device="cpu"))
    peak = peak_memory_gib()  # taken before predicting, which needs memory of its own
    return {"process": before, "measured": peak, **predicted(planned)}


def predicted(planned: Planned) -> dict[str, float]:
    """GiB as planned, the store (in memory) included."""
    import numpy as np
    import torch

    from pipeline.planning.step_timing import StepSpec
    from pipeline.planning.training_memory import predict_memory
    from pipeline.sampling.store_size import case_bytes

    work = StepSpec(planned.network, planned.channels, planned.structures + 1, planned.patch, planned.batch)
    memory = predict_memory(work, planned.precision, torch.device("cpu"))
    store = CASES * case_bytes(planned.patch, planned.channels, np.dtype(np.uint8)) / 2**30
    parts = {"step": memory.step, "weights": memory.weights, "batches": memory.batches, "store": store}
    return {**parts, "predicted": memory.total + store}


def prepare(planned: Planned, folder: Path) -> dict[str, Path]:
    """Finished folders of `plan` and `sample` with cases of noise."""
    import numpy as np

    from pipeline.base.files import write_json
    from pipeline.preprocessing.plan import ChannelPlan, Plan, write_plan
    from pipeline.sampling.foreground_locations import find_locations
    from pipeline.sampling.patch_store import write_case, write_index

    names = [f"channel_{i}" for i in range(planned.channels)]
    plan = Plan(
        spacing_mm=(1.0, 1.0, 1.0),
        channels=tuple(ChannelPlan(name=each, modality="MR", scheme="none") for each in names),
        structures={f"structure_{i}": (i,) for i in range(1, planned.structures + 1)},
        patch_size=planned.patch,
        batch_size=planned.batch,
        network=planned.network,
        max_steps=STEPS,
        precision=planned.precision,
        device="cpu",
        mirror_axes=(0,),
    )
    inputs = {"plan": folder / "plan", "sample": folder / "sample"}
    store = inputs["sample"] / "store"
    for path in (inputs["plan"], store):
        path.mkdir(parents=True)
    write_plan(inputs["plan"], plan)
    rng, shape, entries = np.random.default_rng(0), planned.patch, {}
    for case in (f"case_{i}" for i in range(CASES)):
        image = rng.standard_normal((planned.channels, *shape), np.float32)
        label = rng.integers(0, planned.structures + 1, shape, np.uint8)
        entries[case] = write_case(store, case, case, image, label, *find_locations(label, plan, 100, rng))
    write_index(store, entries, "ram", np.dtype(np.uint8))
    cases = list(entries)
    write_json(inputs["sample"] / "folds.json", {"folds": [{"train": cases[1:], "val": cases[:1]}], "source": "made"})
    return inputs


if __name__ == "__main__":
    main()
