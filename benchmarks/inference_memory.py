"""How much memory segmenting a large scan takes, predicted and measured: 100 classes on 512 x 512 x 800 voxels.

    python benchmarks/inference_memory.py                       model grid = image grid, roi 96, half precision
    python benchmarks/inference_memory.py --image 420,420,640   image on a coarser grid than the model's
    python benchmarks/inference_memory.py --files 1 ...         from a file to a file, as `segpipe predict` does it
    python benchmarks/inference_memory.py --check ...           count voxels unlike the plain way's (small sizes)
    python benchmarks/inference_memory.py --files 1 --maps uncertainty --postprocess   with what may be asked for
    python benchmarks/inference_memory.py --files 1 --package RUN/package --backend onnx   with a real network

The network is cheap (class k likes intensities near k), so that what is seen is the memory of inference itself, unless
a package gives one; its window and classes count then, and voxels of 1 mm. The plain way would hold 84 GB of logits for
one fp32 copy. Says on standard error how far it is, and prints one JSON line: peak is the largest resident set of the
process, base what it had before the case, needs what was predicted on top.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `pipeline.inference.build_predictors` does

import nibabel as nib
import numpy as np
import torch

from pipeline.base.heap import ONE_POOL
from pipeline.base.process_memory import peak_memory_gib, resident_memory_gib
from pipeline.inference.backends.torch_backend import TorchModel
from pipeline.inference.predictor import Predictor, Prepared
from pipeline.inference.predictor_config import PostprocessConfig, PredictorConfig
from pipeline.inference.segment_cases import segment_cases
from pipeline.inference.segmentation_jobs import Job
from pipeline.inference.slab_blending import best_layout
from pipeline.inference.sliding_window import sliding_window
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import ChannelPlan, Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="512,512,800", help="voxels of the model's grid")
    parser.add_argument("--image", default=None, help="voxels of the image's grid; default: the model's")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--roi", type=int, default=96)
    parser.add_argument("--accumulate", choices=("fp32", "half"), default="half")
    parser.add_argument("--files", type=int, default=0, help="channels read from so many .nii.gz files; 0: made here")
    parser.add_argument("--dtype", default="int16", help="voxel type of these files, such as float64")
    parser.add_argument("--check", action="store_true", help="not with --files")
    parser.add_argument("--maps", choices=("uncertainty", "probabilities"), help="written beside the label map")
    parser.add_argument("--package", type=Path, help="take its networks")
    parser.add_argument("--overlap", type=float, help="of its windows, instead of its own")
    parser.add_argument("--backend", choices=("torch", "onnx", "openvino"), default="torch", help="with --package")
    parser.add_argument("--postprocess", action="store_true", help="with --files: fills holes and keeps the largest")
    arguments = parser.parse_args()
    if arguments.postprocess and not arguments.files:
        parser.error("--postprocess is done when a segmentation is written, which needs --files")
    model = tuple(int(n) for n in arguments.model.split(","))
    image = tuple(int(n) for n in (arguments.image or arguments.model).split(","))
    spacing_mm = tuple(i / m for i, m in zip(image, model, strict=True))
    plan = make_plan(arguments.classes, arguments.roi, spacing_mm, arguments.files or 1)
    network = LikesOneIntensity(arguments.classes)
    settings = PredictorConfig(accumulate=arguments.accumulate, **asked_for(arguments))
    predictor = Predictor(plan, TorchModel([network], torch.device("cpu")), settings)
    if arguments.package:
        predictor = packaged(arguments)
    stored = math.prod(image) * max(np.dtype(arguments.dtype).itemsize, 4 if arguments.files > 1 else 0)
    needs = predictor.needs(Grid(image, np.eye(4)), stored)  # type: ignore[arg-type]
    network.expected = sum(1 for _ in best_layout(model, plan.patch_size, predictor.settings, True)[0].corners())
    need = needs.half if arguments.accumulate == "half" else needs.fp32
    started = time.monotonic()
    if arguments.files:
        labels = from_files(predictor, image, arguments.files, arguments.dtype)
    else:
        prepared = prepare(predictor, image)
        conformed = prepared.conformed.image
        labels = predictor.predict_prepared(prepared).labels.array
    peak = peak_memory_gib()  # not getrusage's: that begins with what the process had that started this one
    record = {
        "model_grid": model,
        "image_grid": image,
        "classes": arguments.classes,
        "roi": arguments.roi,
        "accumulate": arguments.accumulate,
        "backend": predictor.model.backend,
        "windows": network.calls or None,
        "base_gib": round(needs.base, 3),
        "needs_gib": round(need.peak, 3),
        "predicted_gib": round(needs.base + need.peak, 3),
        "peak_gib": round(peak, 3),
        "peak_gb": round(peak * 1.073741824, 3),
        "resident_after_gib": round(resident_memory_gib(), 3),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "threads": torch.get_num_threads(),
        "classes_found": len(np.unique(labels if arguments.files else labels[::16, ::16, ::16])),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    if arguments.check:
        record["different_voxels"] = difference(labels, conformed, network, plan, image)
        record["voxels"] = math.prod(image)
    print(json.dumps(record))


def asked_for(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings for what is asked for beside labels; steps are done to class 1."""
    first = ("structure_1",)
    steps = PostprocessConfig(fill_holes=first, largest_component=first) if arguments.postprocess else "none"
    return {"postprocess": steps, **({arguments.maps: True} if arguments.maps else {})}


def packaged(arguments: argparse.Namespace) -> Predictor:
    """The networks of a package as `segpipe predict` opens them."""
    from pipeline.inference.build_predictors import build_predictors
    from pipeline.inference.predictor_spec import PredictorSpec
    from pipeline.packaging.model_package import load_package

    package = load_package(arguments.package)
    asked: dict[str, Any] = {"accumulate": arguments.accumulate, "backend": arguments.backend}
    asked |= {} if arguments.overlap is None else {"overlap": arguments.overlap}
    settings = package.settings.model_copy(update=asked | ({arguments.maps: True} if arguments.maps else {}))
    return build_predictors(PredictorSpec(package.plan, settings, {"": package.weights}, "cpu"))("")


class LikesOneIntensity:
    """Class k has the largest logit where the intensity is nearest to k: 2·k·x − k²."""

    def __init__(self, classes: int) -> None:
        k = torch.arange(classes, dtype=torch.float32)[None, :, None, None, None]
        self.slope, self.offset = 2 * k, -(k**2)
        self.calls, self.expected = 0, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls % 50 == 0:
            print(f"{self.calls} of {self.expected} windows", file=sys.stderr, flush=True)
        return torch.addcmul(self.offset, windows[:, :1], self.slope)


def make_plan(classes: int, roi: int, spacing_mm: tuple[float, ...], channels: int = 1) -> Plan:
    return Plan(
        spacing_mm=spacing_mm,
        channels=tuple(ChannelPlan(name=f"x{i}", modality="MR", scheme="none") for i in range(channels)),
        structures={f"structure_{k}": (k,) for k in range(1, classes)},
        patch_size=(roi, roi, roi),
        batch_size=1,
        network={"name": "unet"},
        max_steps=1,
        precision="fp32",
        device="cpu",
    )


def prepare(predictor: Predictor, shape: tuple[int, ...]) -> Prepared:
    """A smooth image whose intensities run through all classes, brought onto the model's grid and let go of."""
    x, y, z = (np.linspace(0, 4 * np.pi, n, dtype=np.float32) for n in shape)
    voxels = np.empty((1, *shape), np.float32)
    middle = (predictor.plan.out_channels - 1) / 2
    for i, at in enumerate(x):
        waves = np.sin(at) + np.cos(0.7 * y)[:, None] + np.sin(1.3 * z + at)[None, :]
        voxels[0, i] = middle + middle / 3 * waves
    return predictor.prepare(Volume(voxels, Grid(shape, np.eye(4))))  # type: ignore[arg-type]


def from_files(predictor: Predictor, shape: tuple[int, ...], channels: int, dtype: str) -> np.ndarray:
    """Every 16th written label of scans that another process makes, so that this takes no memory here."""
    make = (
        "import sys, numpy as np, nibabel as nib; *shape, top = map(int, sys.argv[3:]); "
        "steps = [np.arange(n, dtype=np.int16) for n in shape]; "
        "voxels = (steps[0][:, None, None] // 2 + steps[1][:, None] // 3 + steps[2] // 4) % top; "
        "nib.save(nib.Nifti1Image(voxels.astype(sys.argv[2]), np.eye(4)), sys.argv[1])"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(Path(folder) / f"scan_{i:04d}.nii.gz" for i in range(channels))
        for path in paths:
            words = [str(path), dtype, *map(str, shape), str(predictor.plan.out_channels)]
            subprocess.run([sys.executable, "-c", make, *words], check=True)
        job = Job("scan", paths, Path(folder) / "labels.nii.gz")
        (result,) = segment_cases([job], lambda _: predictor)
        if result.status != "done":
            raise SystemExit(result.message)
        return np.asarray(nib.load(job.output).dataobj[::16, ::16, ::16])


def difference(
    labels: np.ndarray, conformed: np.ndarray, network: LikesOneIntensity, plan: Plan, image: tuple[int, ...]
) -> int:
    """Voxels that differ from the plain way: all logits at once, scaled to the image's grid, argmax."""
    with torch.inference_mode():
        logits = sliding_window(torch.from_numpy(conformed)[None], network, plan.patch_size, 0.5)
        if logits.shape[2:] != image:
            logits = torch.nn.functional.interpolate(logits, size=image, mode="trilinear", align_corners=False)
        return int((logits[0].argmax(0).numpy() != labels).sum())


if __name__ == "__main__":
    if not ONE_POOL.items() <= os.environ.items():  # as the process that segments a batch has it
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_POOL})  # noqa: S606
    main()
