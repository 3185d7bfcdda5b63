"""How long scoring takes: all metrics of a data set of small scans, and of one large scan next to MONAI.

    python benchmarks/metrics.py small     52 cases of hippocampus size, files to summary.json, start-up included
    python benchmarks/metrics.py large     512 x 512 x 300 with 10 structures: segpipe and MONAI in turn

`large` times MONAI's HausdorffDistanceMetric (95 %), SurfaceDistanceMetric and SurfaceDiceMetric, one structure at a
time and without the one-hot encoding that they need, against all of segpipe's metrics from the two label maps.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

SPACING_MM = (0.8, 0.8, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("small", "large"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "small":
        small(arguments.repeats)
    else:
        large(arguments.repeats, arguments.threads)


def small(repeats: int) -> None:
    """Wall time of a whole process that scores 52 pairs of 36 x 50 x 36 voxels with two structures."""
    from pipeline.data.formats import write_label
    from pipeline.data.geometry import Grid
    from pipeline.data.volume import Volume

    with tempfile.TemporaryDirectory() as folder:
        for case in range(52):
            pred, ref = label_maps((36, 50, 36), structures=2, seed=case)
            for side, labels in (("pred", pred), ("ref", ref)):
                write_label(
                    Path(folder) / side / f"case_{case:02d}.nii.gz", Volume(labels, Grid(labels.shape, np.eye(4)))
                )
        program = (
            "import sys; from pathlib import Path; from pipeline.evaluation import score; f = Path(sys.argv[1]); "
            "score(f / 'pred', f / 'ref', 'anterior=1,posterior=2', f / 'out')"
        )
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program, folder], check=True)
            seconds.append(time.perf_counter() - start)
    print(f"52 cases, all metrics, start-up included: {', '.join(f'{s:.2f}' for s in seconds)} s")


def large(repeats: int, threads: int) -> None:
    """Ours and MONAI's in turn in one process."""
    import monai
    import torch

    from pipeline.metrics.case import MetricSettings, score_case

    torch.set_num_threads(threads)
    pred, ref = label_maps((512, 512, 300), structures=10, seed=0)
    structures = {f"structure {value}": (value,) for value in range(1, 11)}
    tracemalloc.start()
    score_case(pred, ref, structures, SPACING_MM, MetricSettings())
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"monai {monai.__version__}, torch {torch.__version__}, numpy {np.__version__}, {threads} threads")
    print(f"segpipe's arrays beyond the two label maps: {peak:.0f} MiB at most")
    ratios = []
    for _ in range(repeats):
        start = time.perf_counter()
        rows = score_case(pred, ref, structures, SPACING_MM, MetricSettings(surface="voxel")).rows
        ours = time.perf_counter() - start
        start = time.perf_counter()
        score_case(pred, ref, structures, SPACING_MM, MetricSettings())
        surfel = time.perf_counter() - start
        theirs, largest_difference = 0.0, 0.0
        for value, row in enumerate(rows.values(), start=1):
            seconds, figures = monai_figures(pred, ref, value)
            theirs += seconds
            own = (row["hd95_mm"], row["assd_mm"], row["nsd"])
            largest_difference = max(largest_difference, *(abs(a - b) for a, b in zip(own, figures, strict=True)))
        ratios.append(theirs / surfel)
        print(
            f"segpipe, all metrics: surfel {surfel:.2f} s, voxel {ours:.2f} s; MONAI, three metrics: {theirs:.2f} s; "
            f"ratio {theirs / surfel:.1f} (surfel), {theirs / ours:.1f} (voxel); "
            f"largest difference of the voxel figures {largest_difference:.1e}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}")


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
