"""A package with a small U-Net whose weights are random but fixed: for tests of everything around the network.

`python -m tests.packaging.small_package FOLDER [SCAN]` writes one, for `docker/verify.sh`; with ONNX exports where a
scan to check them on is given.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.base.files import read_json, write_json
from pipeline.base.machine import Runtime
from pipeline.config.package import PackageConfig
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.models.checkpoint import save_weights
from pipeline.models.networks.build_network import build_network
from pipeline.preprocessing.plan import Plan, read_plan, write_plan
from pipeline.stages.package import run
from pipeline.stages.stage_configs import PackageStageConfig
from tests.packaging.finished_stages import finished_stages

NETWORK = {"name": "unet", "channels": [4, 8, 16], "deep_supervision": 1}
INTENSITY = {"p005_min": 0.0, "p005_max": 1e5, "p995_min": 50.0, "p995_max": 2e6}


def small_package(
    out: Path,
    seeds: tuple[int, ...] = (0,),
    scan: Path | None = None,
    planned: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Packages one network per seed into `out` and returns it.

    scan: exports (to ONNX, unless `settings` say otherwise) are made and checked on it. planned: changes to the plan.
    """
    with tempfile.TemporaryDirectory() as temporary:
        inputs = finished_stages(Path(temporary), folds=seeds)
        values = read_plan(inputs["plan"]).model_dump(mode="json") | {"network": NETWORK} | dict(planned or {})
        plan = Plan.model_validate(values)
        write_plan(inputs["plan"], plan)
        if scan is not None:
            cases = read_json(inputs["load"] / "cases.json")
            cases["cases"][0]["images"] = [scan.name]
            write_json(inputs["load"] / "cases.json", cases)
            write_json(inputs["load"] / "location.json", {"root": str(scan.parent)})
            settings.setdefault("exports", ("onnx",))
        known = {"n_cases": 2, "spacings_mm": [[1, 1, 1]] * 2, "shapes": [[34, 48, 30], [38, 55, 45]]}
        write_json(inputs["load"] / "fingerprint.json", {**known, "intensity": [INTENSITY]})
        for seed in seeds:
            torch.manual_seed(seed)
            network = build_network(plan.network, len(plan.channels), plan.out_channels)
            save_weights(inputs["train"] / f"fold_{seed}" / "last.safetensors", network.state_dict())
        out.mkdir(parents=True)
        (out / "config.yaml").write_text("name: small\n")
        reads = PackageStageConfig(package=PackageConfig(name="small", **settings), inference=PredictorConfig())
        run(reads, inputs, out, Runtime())
    return out


if __name__ == "__main__":
    small_package(Path(sys.argv[1]), scan=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
