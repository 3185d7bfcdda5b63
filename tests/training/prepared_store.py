"""A prepared plan and patch store of tiny cases, as `plan` and `sample` leave them, made without either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.base.files import write_json
from pipeline.base.stage import RECORD
from pipeline.preprocessing.plan import ChannelPlan, Plan, write_plan
from pipeline.sampling.foreground_locations import find_locations
from pipeline.sampling.patch_store import write_case, write_index

SHAPE = (20, 12, 12)
CASES = tuple(f"case_{i}" for i in range(6))
NETWORK = {"name": "unet", "channels": (4, 8, 8)}


def prepare(root: Path, **planned) -> Mapping[str, Path]:
    """Finished folders `plan` and `sample` below `root`: six cases with two boxes each, in three folds."""
    settings = {
        "spacing_mm": (1.0, 1.0, 1.0),
        "channels": (ChannelPlan(name="T1", modality="MR", scheme="zscore"),),
        "structures": {"large": (1,), "small": (2,)},
        "patch_size": (16, 8, 8),
        "batch_size": 2,
        "network": NETWORK,
        "max_steps": 6,
        "precision": "fp32",
        "device": "cpu",
        "num_threads": 1,
        "mirror_axes": (0, 1, 2),
    }
    plan = Plan(**{**settings, **planned})
    inputs = {name: root / name for name in ("plan", "sample")}
    store = inputs["sample"] / "store"
    store.mkdir(parents=True)
    write_plan(_made(inputs["plan"]), plan)
    entries = {case: _write(store, case, plan) for case in CASES}
    write_index(store, entries, "ram", np.dtype(np.uint8))
    folds = [
        {"train": [c for c in CASES if c not in CASES[2 * f : 2 * f + 2]], "val": list(CASES[2 * f : 2 * f + 2])}
        for f in range(3)
    ]
    write_json(inputs["sample"] / "folds.json", {"folds": folds, "source": "made"})
    for folder in inputs.values():
        write_json(folder / RECORD, {"request": {}, "outputs": {}})
    return inputs


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(store: Path, case: str, plan: Plan) -> dict:
    """A bright large box with a brighter small one in it; bit masks where the plan's structures overlap."""
    rng = np.random.default_rng(CASES.index(case))
    x, y, z = (int(rng.integers(0, n - 8)) for n in SHAPE)
    large, small = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    large[x : x + 8, y : y + 7, z : z + 7] = 1
    small[x + 2 : x + 5, y + 2 : y + 5, z + 2 : z + 5] = 1
    label = large + 2 * small if plan.overlapping else large + small
    if plan.ignore_value is not None:
        label[:, :, -2:] = 255
    channels = len(plan.channels)
    image = (rng.normal(0, 0.3, (channels, *SHAPE)) + 2 * large + 2 * small).astype(np.float32)
    locations, foreground = find_locations(label, plan, 100, rng)
    return write_case(store, case, case, image, label, locations, foreground)
