"""Folders as finished stages leave them, small enough to package in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pipeline.base.files import write_json
from pipeline.base.machine import Runtime
from pipeline.config.package import PackageConfig
from pipeline.dataset.loaded_cases import Case, Cases, Channel
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.preprocessing.plan import ChannelPlan, Plan, write_plan
from pipeline.stages.package import run
from pipeline.stages.stage_configs import PackageStageConfig

STRUCTURES: dict[str, tuple[int, ...]] = {"anterior": (1,), "posterior": (2,)}
FINGERPRINT = {
    "spacings_mm": [[1.0, 1.0, 1.0], [1.0, 1.0, 1.2]],
    "shapes": [[35, 51, 35], [34, 50, 40]],
    "orientations": ["RAS"],
}
SUMMARY = {
    "structures": {
        name: {"dice": {"mean": 0.88, "std": 0.03, "ci95": [0.87, 0.89], "n": 42}, "counts": {"n_cases": 42}}
        for name in STRUCTURES
    },
    "mean": {"dice": {"mean": 0.88, "std": 0.03, "ci95": [0.87, 0.89], "n": 2}},
    "definitions": {"dice": "2|A∩B| / (|A|+|B|)"},
}


def finished_stages(root: Path, folds: tuple[int | str, ...] = (0,)) -> dict[str, Path]:
    """Writes load, plan, train, infer and evaluate folders below `root` and returns them by name."""
    folders = {name: root / name for name in ("load", "plan", "train", "infer", "evaluate")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_json(folders["load"] / "cases.json", _cases().model_dump(mode="json"))
    write_json(folders["load"] / "fingerprint.json", FINGERPRINT)
    write_plan(folders["plan"], _plan())
    write_json(folders["infer"] / "postprocess.json", {"applied": "none", "asked": "none"})
    write_json(folders["evaluate"] / "summary.json", SUMMARY)
    write_json(
        folders["train"] / "train.json",
        {"folds": list(folds), "network": {"name": "unet"}, "loss": {"name": "dice_ce"}, "steps": 100},
    )
    for fold in folds:
        (folders["train"] / f"fold_{fold}").mkdir()
        weights = {"layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
        save_file(weights, str(folders["train"] / f"fold_{fold}" / "last.safetensors"))
    return folders


def _cases() -> Cases:
    case = Case(
        id="hippocampus_001",
        subject="001",
        images=("images/hippocampus_001.nii.gz",),
        label="labels/hippocampus_001.nii.gz",
        split="training",
        shape=(35, 51, 35),
        spacing_mm=(1.0, 1.0, 1.0),
        orientation="RAS",
        affine=((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)),
        sha256={},
    )
    return Cases(
        dataset="hippocampus",
        channels=(Channel(name="T1"),),
        structures=STRUCTURES,
        licence="CC-BY-SA-4.0",
        cases=(case,),
    )


def _plan() -> Plan:
    return Plan(
        spacing_mm=(1.0, 1.0, 1.0),
        channels=(ChannelPlan(name="T1", modality="MR", scheme="zscore"),),
        structures=STRUCTURES,
        patch_size=(32, 32, 32),
        batch_size=2,
        network={"name": "unet"},
        max_steps=100,
        precision="fp32",
        device="cpu",
    )


def package_of_stages(root: Path) -> Path:
    """Writes finished stages and their package, without a MONAI bundle, below `root`; returns the package's folder."""
    out = root / "package"
    out.mkdir()
    (out / "config.yaml").write_text("name: hippocampus\n")
    reads = PackageStageConfig(package=PackageConfig(bundle=False), inference=PredictorConfig())
    run(reads, finished_stages(root), out, Runtime())
    return out
