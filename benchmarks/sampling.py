"""Patches per second: ours against MONAI's CacheDataset + RandCropByLabelClassesd with the same augmentations.

    python benchmarks/sampling.py [--seconds 3] [--repeats 5] [--record FILE] [--quick]

Both draw from the same phantoms in memory, on the same cores, in turn. Each side is first tried in every setting it
has (threads; MONAI's DataLoader with worker processes, its ThreadDataLoader), and measured in its fastest.
What is favourable to MONAI: class indices are cached, no metadata is tracked, its affine grid is cached; ours shows
what lies around a patch where it is turned, instead of repeated edges. Goal: 5 times as many.

Three rows: cropping alone; with the default augmentations but elastic displacement; with all of them. MONAI's
counterpart of the last (Rand3DElasticd) smooths noise with a Gaussian, whose cost grows with its width. The width is
the one at which its displacement is as smooth as ours along the axis where that is least smooth, and so the cheapest
(see `elastic_sigma_voxels`).

Also the share of a CPU training step of the default network that augmenting takes, and drawing with augmenting. Goal:
augmenting at most 15 %. About two minutes on a quiet machine; --quick: seconds, and figures that mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

PATCH = (40, 56, 40)
SHAPE = (64, 72, 48)
BATCH = 4
GOAL, GOAL_SHARE = 5.0, 0.15
SPACING_MM = (1.0, 1.0, 2.0)
How = Literal["crop only", "crop and augment, but elastic", "crop and augment"]
HOWS: tuple[How, ...] = get_args(How)
Pairs = list[tuple[np.ndarray, np.ndarray]]
Draw = Callable[[int], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    seconds, repeats = (0.3, 1) if arguments.quick else (arguments.seconds, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        pairs = phantoms(Path(folder), cases=3 if arguments.quick else 8)
    rows = [compared(pairs, how, seconds, repeats) for how in HOWS]
    from pipeline.base.terminal import format_table

    columns = ("what", "ours /s", "as", "MONAI /s", "as", "ratio", "each")
    print(format_table(columns, rows))
    said = share_of_step(pairs, batches=3 if arguments.quick else 40)
    print(said)
    if arguments.record:
        from recording import write_record

        write_record(arguments.record, "Patches per second, ours and MONAI's", columns, rows, [said])


@dataclass
class Side:
    """One way of drawing batches: how it is set, and what it takes to draw the next one."""

    name: str
    threads: int
    draw: Draw


def compared(pairs: Pairs, how: How, seconds: float, repeats: int) -> tuple[str, ...]:
    """Both sides in their fastest setting, in turn."""
    mine, theirs = (fastest(sides, seconds) for sides in (our_sides(pairs, how), monai_sides(pairs, how)))
    speeds = [[patches_per_second(side, seconds) for side in (mine, theirs)] for _ in range(repeats)]
    ratios = [first / second for first, second in speeds]
    first, second = (statistics.median(column) for column in zip(*speeds, strict=True))
    each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    said = f"{statistics.median(ratios):.1f}; goal {GOAL:g}" if how == HOWS[-1] else f"{statistics.median(ratios):.1f}"
    return how, f"{first:.0f}", mine.name, f"{second:.0f}", theirs.name, said, each


def fastest(sides: Iterator[Side], seconds: float) -> Side:
    return max(sides, key=lambda side: patches_per_second(side, seconds / 2))


def patches_per_second(side: Side, seconds: float) -> float:
    """Counted from the second batch on, so that workers have started."""
    torch.set_num_threads(side.threads)
    side.draw(0)
    step, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or step == 0:
        step += 1
        side.draw(step)
    return step * BATCH / passed if passed else float(step * BATCH)


def phantoms(folder: Path, cases: int) -> Pairs:
    """Images (1, X, Y, Z) of mean 0 and deviation 1, and labels; in C order, as a patch store has them."""
    import nibabel as nib

    from pipeline.dataset.phantoms import make_phantoms

    make_phantoms(folder, cases=cases, shape=SHAPE)
    pairs = []
    for path in sorted((folder / "images").iterdir()):
        image = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, np.float32)
        label = np.asarray(nib.as_closest_canonical(nib.load(folder / "labels" / path.name)).dataobj)
        normed = np.ascontiguousarray((image - image.mean()) / image.std())
        pairs.append((normed[None], np.ascontiguousarray(label, np.uint8)))
    return pairs


class Memory:
    """Cases in memory, as the patch store gives them."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = {f"case_{i}": pair for i, pair in enumerate(pairs)}
        self.found = {
            name: {k: np.argwhere(label == k).astype(np.int32) for k in np.unique(label) if k}
            for name, (_, label) in self.pairs.items()
        }

    def shape(self, case: str) -> tuple[int, int, int]:
        return self.pairs[case][1].shape

    def image(self, case: str) -> np.ndarray:
        return self.pairs[case][0]

    def label(self, case: str) -> np.ndarray:
        return self.pairs[case][1]

    def locations(self, case: str) -> dict[int, np.ndarray]:
        return self.found[case]


def our_sides(pairs: Pairs, how: How) -> Iterator[Side]:
    """As training draws them, ahead of their use (train.data_threads)."""
    from pipeline.training.prefetch import prefetch

    def ahead(threads: int) -> Iterator[Any]:
        with prefetch(our_draw(pairs, how), 0, 10**9, threads) as batches:
            yield from batches

    for threads in thread_counts():
        batches = ahead(threads)
        yield Side(f"{threads} drawing thread(s)", 1, partial(_next_of, batches))


def _next_of(batches: Iterator[Any], step: int) -> Any:  # noqa: ARG001, they come in order
    return next(batches)


def thread_counts() -> list[int]:
    from pipeline.base.machine import usable_cores

    return sorted({1, usable_cores()})


def our_draw(pairs: Pairs, how: How) -> Draw:
    from pipeline.sampling.augmentation.augment_batch import augment_batch
    from pipeline.sampling.augmentation.augmentation_config import AugmentConfig, ElasticConfig
    from pipeline.sampling.augmentation.random_parameters import draw_params
    from pipeline.sampling.augmentation.spatial_transforms import margin
    from pipeline.sampling.cut_patches import cut_with_margin
    from pipeline.sampling.draw_batch import draw_batch
    from pipeline.sampling.patch_locations import draw_locations

    store, config, spacing_mm = Memory(pairs), AugmentConfig(), SPACING_MM
    ids = list(store.pairs)
    if how == "crop and augment, but elastic":
        config = config.model_copy(update={"elastic": ElasticConfig(prob=0.0)})

    def draw(step: int) -> Any:
        if how == "crop only":
            return draw_batch(store, ids, PATCH, BATCH, 0, step)
        changes = [draw_params(config, 0, step * BATCH + b, 1, (0,), spacing_mm, PATCH) for b in range(BATCH)]
        places = draw_locations(store, ids, PATCH, BATCH, 0, step)
        around = [margin(change.spatial, PATCH, spacing_mm) if change else (0, 0, 0) for change in changes]
        samples = [cut_with_margin(store, place, PATCH, extra) for place, extra in zip(places, around, strict=True)]
        return augment_batch(samples, changes, PATCH, spacing_mm)

    return draw


def monai_sides(pairs: Pairs, how: How) -> Iterator[Side]:
    """MONAI's loaders as its tutorials set them; not several thread workers, which share one transform's random state
    and gave patches of different sizes here."""
    from monai.data import CacheDataset, DataLoader, ThreadDataLoader, set_track_meta
    from monai.transforms import Compose

    from pipeline.base.machine import usable_cores

    set_track_meta(False)
    # Long epochs, so that starting one does not count.
    data = [{"image": image, "label": label[None]} for image, label in pairs] * 8
    dataset, cores = CacheDataset(data, Compose(monai_steps(how)), progress=False), usable_cores()
    shared: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "drop_last": True}
    for threads in thread_counts():
        yield Side(f"DataLoader, {threads} thread(s)", threads, endless(DataLoader(dataset, num_workers=0, **shared)))
    workers = {"num_workers": cores, "persistent_workers": True, **shared}
    yield Side(f"DataLoader, {cores} processes", 1, endless(DataLoader(dataset, **workers)))
    yield Side("ThreadDataLoader", cores, endless(ThreadDataLoader(dataset, num_workers=0, buffer_size=2, **shared)))


def endless(loader: Any) -> Draw:
    stream = iter(loader)

    def draw(step: int) -> None:  # noqa: ARG001, MONAI's patches come from its own state
        nonlocal stream
        try:
            next(stream)
        except StopIteration:
            stream = iter(loader)
            next(stream)

    return draw


def monai_steps(how: How) -> list[Any]:
    """Random crops on classes, a third of them on structures as ours; then the augmentations, as ours are set."""
    from monai import transforms as mt

    from pipeline.sampling.augmentation.augmentation_config import AugmentConfig

    both, config = ["image", "label"], AugmentConfig()
    steps: list[Any] = [
        mt.EnsureTyped(both),
        mt.SpatialPadd(both, PATCH),
        mt.ClassesToIndicesd("label", num_classes=4),
        mt.RandCropByLabelClassesd(
            both, "label", PATCH, ratios=[6, 1, 1, 1], num_classes=4, indices_key="label_cls_indices", warn=False
        ),
        mt.DeleteItemsd(["label_cls_indices"]),
    ]
    if how == "crop only":
        return steps
    angle = float(np.deg2rad(config.affine.rotation_degrees))
    shrink, grow = (factor - 1 for factor in config.affine.scale)
    darker, brighter = (factor - 1 for factor in config.brightness.factor)
    flatter, steeper = (factor - 1 for factor in config.contrast.factor)
    sigma = config.blur.sigma
    bent = mt.Rand3DElasticd(
        both,
        (elastic_sigma_voxels(),) * 2,
        config.elastic.magnitude_mm,
        spatial_size=PATCH,
        prob=config.elastic.prob,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    return [
        *steps,
        mt.RandAffined(
            both,
            spatial_size=PATCH,
            prob=config.affine.prob,
            rotate_range=((-angle, angle),) * 3,
            scale_range=((shrink, grow),) * 3,
            mode=("bilinear", "nearest"),
            padding_mode="border",
            cache_grid=True,
        ),
        *([bent] if how == "crop and augment" else []),
        mt.RandFlipd(both, prob=config.flip_prob, spatial_axis=0),
        mt.RandGaussianNoised("image", prob=config.noise.prob, std=config.noise.std[1]),
        mt.RandGaussianSmoothd("image", sigma, sigma, sigma, prob=config.blur.prob),
        mt.RandScaleIntensityd("image", factors=(darker, brighter), prob=config.brightness.prob),
        mt.RandScaleIntensityFixedMeand(
            "image", factors=(flatter, steeper), preserve_range=True, prob=config.contrast.prob
        ),
        mt.RandSimulateLowResolutiond("image", prob=config.low_resolution.prob, zoom_range=config.low_resolution.zoom),
        mt.RandAdjustContrastd("image", prob=config.gamma.prob, gamma=config.gamma.gamma, retain_stats=True),
    ]


def elastic_sigma_voxels() -> float:
    """The width at which noise smoothed by a Gaussian is as smooth as ours between control points.

    Smooth: the slope's deviation as a share of the displacement's. Of values at points h apart, with a spline between
    them, it is about π / (h √3) (all frequencies up to 1 / 2h alike), of smoothed noise 1 / (σ √2): σ = 0.39 h.
    """
    from pipeline.sampling.augmentation.augmentation_config import AugmentConfig

    return 0.39 * AugmentConfig().elastic.spacing_mm / max(SPACING_MM)


def share_of_step(pairs: Pairs, batches: int) -> str:
    """CPU seconds of augmenting, and of drawing with augmenting, against those of a training step."""
    from pipeline.base.machine import usable_cores
    from pipeline.planning.step_timing import Precision, StepSpec, TimedStep

    torch.set_num_threads(1)  # as the thread that draws ahead of training
    drawing = cpu_seconds(our_draw(pairs, "crop only"), batches)
    both = cpu_seconds(our_draw(pairs, "crop and augment"), batches)
    torch.set_num_threads(usable_cores())
    work = StepSpec({"name": "unet", "channels": [16, 32, 64, 128]}, 1, 4, PATCH, BATCH)
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    steps = {name: TimedStep(work, name, torch.device("cpu")) for name in precisions}
    # CPU time on both sides: a busy machine stretches wall time, and would make the share look small.
    seconds = {name: cpu_seconds(partial(_taken, take), max(batches // 4, 2)) for name, take in steps.items()}
    precision = min(precisions, key=lambda name: seconds[name])
    step = seconds[precision]
    return (
        f"batch of {BATCH}: a training step (U-Net 16-32-64-128, {precision}) takes {step:.3f} s of CPU. Drawing takes "
        f"{1e3 * drawing:.1f} ms, {drawing / step:.1%} of it; augmenting {1e3 * (both - drawing):.1f} ms more, "
        f"{(both - drawing) / step:.1%} (goal: at most {GOAL_SHARE:.0%}), the margin it needs included"
    )


def _taken(take: Callable[[], object], step: int) -> None:  # noqa: ARG001
    take()


def cpu_seconds(draw: Callable[[int], object], batches: int) -> float:
    """Of this process with all its threads, for one batch; other programs do not count."""
    draw(0)
    start = time.process_time()
    for step in range(1, batches + 1):
        draw(step)
    return (time.process_time() - start) / batches


if __name__ == "__main__":
    from pipeline.base.heap import keep_freed_memory

    keep_freed_memory()
    main()
