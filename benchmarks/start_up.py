"""From the start of a process to a network that is ready, to its first window, and to a segmentation on disk.

    python benchmarks/start_up.py [--package PACKAGE --scan SCAN] [--repeats N] [--record FILE] [--quick]

Every repeat is a fresh Python process that opens a package as the container and `segpipe predict` do: with torch, and
with ONNX Runtime in a process where torch and MONAI cannot be found, as in the slim image. Wall clock runs from before
the process is started; CPU seconds are the process's own and hardly depend on how busy the machine is. Files are in the
page cache, since one more process runs first: what a disk adds to a machine's first start is not measured. Without
--package: a small U-Net with random weights, on a phantom. --quick: one repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("imported", "package open", "ready", "scan prepared", "first window", "segmentation written")
ASKED_S = {("onnx", "ready"): 1.5, ("onnx", "first window"): 3.0}
"""What the project has promised: ready to compute without torch, and the slim image's first voxel."""

PROGRAM = """
import json, resource, sys, time
from importlib.machinery import PathFinder
from pathlib import Path

backend, package, scan, output, begun = sys.argv[1], *map(Path, sys.argv[2:5]), float(sys.argv[5])

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {"torch", "monai"} else PathFinder.find_spec(name, path, target)

if backend == "onnx":
    sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]

def mark():
    used = resource.getrusage(resource.RUSAGE_SELF)
    marks.append([time.time() - begun, used.ru_utime + used.ru_stime])

marks = []
import numpy as np
import pipeline.deploy.container_entrypoint, pipeline.deploy.predict, pipeline.inference.segment_cases
from pipeline.io.read_image import read_image
from pipeline.inference.build_predictors import build_predictors
from pipeline.packaging.model_package import load_package
from pipeline.inference.predictor_spec import PredictorSpec
mark()
model = load_package(package)
mark()
predictor = build_predictors(PredictorSpec(model.plan, model.settings, {"": model.weights}, "cpu"))("")
mark()
predictor.prepare(read_image([scan]))
mark()
with predictor.model.inference_context():
    predictor.model(np.zeros((1, len(model.plan.channels), *model.plan.patch_size), np.float32))
mark()
(result,) = pipeline.deploy.predict.predict(model, scan, output, "cpu", isolated=False)
assert result.status == "done", result.message
mark()
print(json.dumps({"marks": marks, "torch": "torch" in sys.modules, "monai": "monai" in sys.modules}))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the table and writes the record that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--package", type=Path, help="a package with ONNX exports; default: a small one, made here")
    parser.add_argument("--scan", type=Path, help="a scan for --package")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write a page for benchmarks/records")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    if (arguments.package is None) != (arguments.scan is None):
        parser.error("--package needs a --scan, and the other way round")
    from pipeline.base.terminal import format_table

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package, scan = arguments.package, arguments.scan
        if package is None:
            package, scan = _small_package(folder)
        repeats = 1 if arguments.quick else arguments.repeats
        rows = [row for backend in ("onnx", "torch") for row in _measure(backend, package, scan, folder, repeats)]
    columns = ("backend", "until", "wall s, median", "wall s, range", "CPU s, median", "asked")
    print(format_table(columns, rows))
    if arguments.record:
        from recording import write_record

        write_record(
            arguments.record, "Start-up of prediction", columns, rows, [f"{repeats} fresh processes for each backend."]
        )


def _small_package(folder: Path) -> tuple[Path, Path]:
    from pipeline.dataset.phantoms import make_phantoms
    from tests.packaging.small_package import small_package

    make_phantoms(folder / "phantoms")
    scan = min((folder / "phantoms").rglob("*images*/*.nii.gz"))
    return small_package(folder / "package", scan=scan), scan


def _measure(backend: str, package: Path, scan: Path, folder: Path, repeats: int) -> list[tuple[str, ...]]:
    """A row for each phase; one process more than `repeats` runs first, so that files are in the page cache."""
    runs = [_run(backend, package, scan, folder / f"out-{backend}-{i}") for i in range(repeats + 1)][-repeats:]
    rows: list[tuple[str, ...]] = []
    for number, phase in enumerate(PHASES):
        wall, cpu = ([run[number][what] for run in runs] for what in (0, 1))
        asked = ASKED_S.get((backend, phase))
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        under = "" if asked is None else f"under {asked:g}"
        rows.append((backend, phase, f"{statistics.median(wall):.2f}", spread, f"{statistics.median(cpu):.2f}", under))
    return rows


def _run(backend: str, package: Path, scan: Path, output: Path) -> list[tuple[float, float]]:
    output.mkdir()
    command = [sys.executable, "-c", PROGRAM, backend, str(package), str(scan), str(output), repr(time.time())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{backend}: {done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["monai"] or said["torch"] != (backend == "torch"):
        raise SystemExit(f"{backend}: torch and MONAI are not what is compared: {said}")
    return [(wall, cpu) for wall, cpu in said["marks"]]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
