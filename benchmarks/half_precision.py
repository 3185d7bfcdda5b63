"""Labels where overlapping logits are kept in half precision, against fp32, with a trained network on real scans.

    python benchmarks/half_precision.py --model RUN/package --images FOLDER [--cases 12] [--roi 16] [--record FILE]

Each scan is segmented with the same windows twice, once each way of keeping sums (infer.accumulate: fp32, half). Three
ways from logits to labels: the largest of the classes that exclude one another, on the scan's own grid; the same on a
grid of 1.5 times as many voxels along each axis, where logits are interpolated; and yes or no for overlapping regions
(all structures, and the last one in them), whose logits are differences of the network's. Goal: at least 99.99 % of the
voxels equal, over all of them and where the segmentation is not background alone: in the box of its structures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.terminal import format_table
from pipeline.inference.backends.torch_backend import TorchModel
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.io.geometry import Grid
from pipeline.io.read_image import read_image
from pipeline.io.volume import Volume
from pipeline.models.checkpoint import load_weights
from pipeline.models.networks.build_network import build_network
from pipeline.packaging.model_package import load_package
from pipeline.preprocessing.plan import Plan

CPU = torch.device("cpu")
Network = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="package of a trained run")
    parser.add_argument("--images", type=Path, required=True, help="folder of its scans")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--roi", type=int, help="voxels of a window along each axis; default: the package's")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    package = load_package(arguments.model)
    plan, settings = package.plan, package.settings
    if arguments.roi:  # small ones: many overlap, so that sums are put away many times
        settings = settings.model_copy(update={"roi_size": (arguments.roi,) * 3})
    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    network.load_state_dict(load_weights(package.weights[0]))
    network.eval()
    scans = [read_image([path]) for path in sorted(arguments.images.iterdir())[: arguments.cases]]
    ways: dict[str, tuple[Plan, Callable[[torch.Tensor], torch.Tensor], list[Volume]]] = {
        "classes": (plan, network, scans),
        "classes, another grid": (plan, network, [finer(scan) for scan in scans]),
        "overlapping regions": (nested(plan), regions_of(network), scans),
    }
    rows = []
    for name, (its_plan, its_network, images) in ways.items():
        pairs = list(segmented(its_plan, its_network, images, settings))
        whole = [float((one == other).mean()) for one, other in pairs]
        boxed = [float((one[box] == other[box]).mean()) for one, other in pairs for box in (foreground_box(one),)]
        voxels = sum(one.size for one, _ in pairs)
        differing = sum(int((one != other).sum()) for one, other in pairs)
        rows.append((name, f"{len(pairs)}", f"{differing} of {voxels}", share(whole), share(boxed)))
    columns = ("labels from", "scans", "voxels that differ", "equal: mean, least", "in the structures' box")
    print(format_table(columns, rows))
    if arguments.record:
        from recording import write_record

        write_record(arguments.record, "Labels with sums in half precision", columns, rows)


def segmented(
    plan: Plan, network: Network, scans: list[Volume], settings: PredictorConfig
) -> Iterator[tuple[NDArray, NDArray]]:
    """Labels of each scan with sums in fp32 and in half precision; the network computes in fp32 both times."""
    model = TorchModel([network], CPU, "fp32", overlapping=plan.overlapping)
    predictors = [
        Predictor(plan, model, settings.model_copy(update={"accumulate": kept, "postprocess": "none"}))
        for kept in ("fp32", "half")
    ]
    for scan in scans:
        one, other = (np.asarray(predictor.predict(scan).labels.array) for predictor in predictors)
        yield one, other


def finer(scan: Volume) -> Volume:
    """The scan, nearest voxel by nearest voxel, on a grid of 1.5 times as many voxels along each axis."""
    x, y, z = (round(1.5 * n) for n in scan.grid.shape)
    shape = x, y, z
    index = [np.minimum((np.arange(m) * n / m).astype(int), n - 1) for m, n in zip(shape, scan.grid.shape, strict=True)]
    zoom = np.diag([*(n / m for m, n in zip(shape, scan.grid.shape, strict=True)), 1.0])
    array = scan.array[(slice(None), *np.ix_(*index))]
    return replace(scan, array=array, grid=Grid(shape, scan.grid.affine @ zoom))


def nested(plan: Plan) -> Plan:
    """The same with two regions: all structures, and in them the last one."""
    values = [value for structure in plan.structures.values() for value in structure]
    last = next(reversed(plan.structures.values()))
    return plan.model_copy(update={"structures": {"all": tuple(values), "last": tuple(last)}, "overlapping": True})


def regions_of(network: Network) -> Network:
    """Logits (N, 2, …): any structure against the background, and the last one against all else."""

    def regions(windows: torch.Tensor) -> torch.Tensor:
        logits = network(windows)
        anything = logits[:, 1:].amax(1) - logits[:, 0]
        last = logits[:, -1] - logits[:, :-1].amax(1)
        return torch.stack([anything, last], 1)

    return regions


def foreground_box(labels: NDArray) -> tuple[slice, ...]:
    """Around all that is not background; everything where there is nothing else."""
    found = np.argwhere(labels)
    if not len(found):
        return (slice(None),) * labels.ndim
    return tuple(slice(int(low), int(high) + 1) for low, high in zip(found.min(0), found.max(0), strict=True))


def share(values: list[float]) -> str:
    return f"{np.mean(values):.4%}, {min(values):.4%}"


if __name__ == "__main__":
    main()
