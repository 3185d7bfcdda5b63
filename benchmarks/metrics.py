"""How long scoring takes and what memory: a data set of small scans, and one large scan next to MONAI.

    python benchmarks/metrics.py small [--record FILE] [--quick]
    python benchmarks/metrics.py large [--record FILE] [--quick]

`small`: `segpipe score` as a whole process, start-up, reading and writing included, on 52 pairs of 36 x 50 x 36 voxels
with two structures. Wanted: under 3 s on two cores.

`large`: 512 x 512 x 300 voxels with 10 structures. All of segpipe's metrics, from the two label maps, and MONAI's
HausdorffDistanceMetric (95 %), SurfaceDistanceMetric and SurfaceDiceMetric in turn in one process, structure by
structure and without the one-hot encoding that they need. Wanted: at least 10 times as fast, in bounded memory; so each
side also runs once in a process of its own, whose peak is told.
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
from pathlib import Path

import numpy as np
from recording import write_record

from pipeline.base.terminal import format_table

SPACING_MM = (0.8, 0.8, 1.5)
SMALL, LARGE, QUICK = (36, 50, 36), (512, 512, 300), (160, 160, 90)
STRUCTURES = {f"structure {value}": (value,) for value in range(1, 11)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("small", "large", "ours", "monai"), help="ours, monai: one side of large alone"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of MONAI; ours has one")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true", help="a small part, to try the script")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 1
    {"small": small, "large": large, "ours": alone, "monai": alone}[arguments.what](arguments)


def small(arguments: argparse.Namespace) -> None:
    """Wall time and peak memory of `segpipe score` on 52 pairs."""
    cases = 4 if arguments.quick else 52
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder), cases)
        command = [sys.executable, "-m", "pipeline", "score", "--labels", "anterior=1,posterior=2"]
        command += [word for name in ("pred", "ref", "output") for word in (f"--{name}", f"{folder}/{name}")]
        found = [measured(command) for _ in range(arguments.repeats)]
    seconds = sorted(run[0] for run in found)
    row = [f"{cases}", f"{statistics.median(seconds):.2f} s", f"{seconds[0]:.2f} to {seconds[-1]:.2f} s", "under 3 s"]
    row.append(f"{max(run[1] for run in found):.2f} GiB")
    tell(arguments, "Scoring a data set of small scans", SMALL_COLUMNS, [row], [])


def large(arguments: argparse.Namespace) -> None:
    """Times of both sides in turn, and the peak memory of each alone."""
    import torch

    from pipeline.evaluation.metrics.score_case import MetricConfig, score_case

    torch.set_num_threads(arguments.threads)
    pred, ref = label_maps(shape_of(arguments), structures=10, seed=0)
    peaks = {side: peak_alone(side, arguments) for side in ("ours", "monai")}
    rows, ratios, apart = [], [], 0.0
    for repeat in range(arguments.repeats):
        seconds = {}
        for element in ("surfel", "voxel"):
            start = time.perf_counter()
            own = score_case(pred, ref, STRUCTURES, SPACING_MM, MetricConfig(surface=element)).rows
            seconds[element] = time.perf_counter() - start
        theirs = [monai_figures(pred, ref, value) for value in range(1, 11)]
        seconds["monai"] = sum(one[0] for one in theirs)
        for row, (_, figures) in zip(own.values(), theirs, strict=True):
            ours = (row["hd95_mm"], row["assd_mm"], row["nsd"])
            apart = max(apart, *(abs(float(a or 0) - b) for a, b in zip(ours, figures, strict=True)))
        ratios.append(seconds["monai"] / seconds["surfel"])
        ratio = [f"{ratios[-1]:.1f}", f"{seconds['monai'] / seconds['voxel']:.1f}"]
        rows.append([f"{repeat + 1}", *(f"{seconds[side]:.2f} s" for side in ("surfel", "voxel", "monai")), *ratio])
    maps_gib = (pred.nbytes + ref.nbytes) / 2**30
    said = [
        f"Median ratio {statistics.median(ratios):.1f}; wanted: at least 10. The voxel figures differ from MONAI's by "
        f"at most {apart:.1e} (mm, or share).",
        "Peak of a process that does one side once, with interpreter, libraries and the two label maps of together "
        f"{maps_gib:.2f} GiB: "
        + ", ".join(f"{side} {peak:.2f} GiB ({before:.2f} before it)" for side, (before, peak) in peaks.items())
        + ".",
    ]
    tell(arguments, f"Scoring one scan of {' × '.join(map(str, pred.shape))} voxels", LARGE_COLUMNS, rows, said)


SMALL_COLUMNS = ("cases", "median", "range", "wanted", "peak of the process")
LARGE_COLUMNS = ("run", "ours, surfel", "ours, voxel", "MONAI, three metrics", "ratio, surfel", "ratio, voxel")


def tell(
    arguments: argparse.Namespace, title: str, columns: tuple[str, ...], rows: list[list[str]], said: list[str]
) -> None:
    """Prints what was found, and writes it where a record was asked for."""
    print(format_table(columns, rows))
    print("\n".join(said))
    if arguments.record:
        write_record(arguments.record, title, columns, rows, said)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of a process from start to end, and its peak in GiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def peak_alone(side: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """GiB of a process before and at the peak of one side's work."""
    command = [sys.executable, __file__, side, "--threads", str(arguments.threads)]
    output = subprocess.run(command + ["--quick"] * arguments.quick, check=True, capture_output=True, text=True).stdout
    before, peak = json.loads(output.splitlines()[-1])
    return before, peak


def alone(arguments: argparse.Namespace) -> None:
    """One side once in this process; prints its peak before and after."""
    pred, ref = label_maps(shape_of(arguments), structures=10, seed=0)
    if arguments.what == "ours":
        from pipeline.evaluation.metrics.score_case import MetricConfig, score_case

        before = peak_memory_gib()
        score_case(pred, ref, STRUCTURES, SPACING_MM, MetricConfig())
    else:
        import torch

        torch.set_num_threads(arguments.threads)
        monai_figures(pred[:8, :8, :8], ref[:8, :8, :8], 0)  # for the imports
        before = peak_memory_gib()
        for value in range(1, 11):
            monai_figures(pred, ref, value)
    print(json.dumps((before, peak_memory_gib())))


def peak_memory_gib() -> float:
    """This process's own peak: getrusage's would be that of the larger process which started this one."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20


def shape_of(arguments: argparse.Namespace) -> tuple[int, int, int]:
    return QUICK if arguments.quick else LARGE


def write_pairs(folder: Path, cases: int) -> None:
    """Predictions and references of hippocampus size."""
    from pipeline.io.geometry import Grid
    from pipeline.io.volume import Volume
    from pipeline.io.write_label import write_label

    for case in range(cases):
        for side, labels in zip(("pred", "ref"), label_maps(SMALL, structures=2, seed=case), strict=True):
            write_label(folder / side / f"case_{case:02d}.nii.gz", Volume(labels, Grid(labels.shape, np.eye(4))))


def monai_figures(pred: np.ndarray, ref: np.ndarray, value: int) -> tuple[float, tuple[float, ...]]:
    """Seconds, and HD95, ASSD, NSD of one structure by MONAI."""
    import torch
    from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric

    metrics = (
        HausdorffDistanceMetric(include_background=True, percentile=95),
        SurfaceDistanceMetric(include_background=True, symmetric=True),
        SurfaceDiceMetric(include_background=True, class_thresholds=[1.0]),
    )
    masks = [torch.from_numpy(np.ascontiguousarray(labels == value))[None, None] for labels in (pred, ref)]
    start = time.perf_counter()
    figures = tuple(float(metric(*masks, spacing=SPACING_MM)) for metric in metrics)
    return time.perf_counter() - start, figures


def label_maps(shape: tuple[int, int, int], structures: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a reference in nibabel's memory order: wobbly ellipsoids of 4 to 16 % of each axis (radius),
    moved by about a voxel and a half in the prediction."""
    rng = np.random.default_rng(seed)
    pred, ref = (np.zeros(shape, np.uint8, order="F") for _ in range(2))
    for value in range(1, structures + 1):
        radii = rng.uniform(0.04, 0.16, 3) * shape * (1 if structures > 2 else 2)
        centre = rng.uniform(0.25, 0.75, 3) * shape
        for labels, shift, phase in ((ref, np.zeros(3), 0.0), (pred, rng.normal(0, 1.5, 3), 0.4)):
            low = np.maximum((centre - 1.4 * radii - 6).astype(int), 0)
            high = np.minimum((centre + 1.4 * radii + 6).astype(int), shape)
            x, y, z = np.meshgrid(*map(np.arange, low, high), indexing="ij", sparse=True)
            wobble = 1 + 0.08 * np.sin(x / 9 + phase) * np.sin(y / 7) * np.sin(z / 8 + phase)
            distance = sum(((a - c - s) / r) ** 2 for a, c, s, r in zip((x, y, z), centre, shift, radii, strict=True))
            labels[tuple(map(slice, low, high))][distance < wobble] = value
    return pred, ref


if __name__ == "__main__":
    main()
