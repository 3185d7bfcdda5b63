"""Patches per second: ours against MONAI's CacheDataset + RandCropByLabelClassesd with the same augmentations.

    python benchmarks/sampling.py [--patches 200] [--repeats 5]

Both draw from the same phantoms in memory, on one thread, in turn; MONAI's class indices are cached as well. Also the
share of a CPU training step of the default network that drawing and augmenting take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

PATCH = (40, 56, 40)
SHAPE = (64, 72, 48)
BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pairs = phantoms(Path(folder))
    sides = {
        "crop only": (our_draw(pairs, augmented=False), monai_draw(pairs, augmented=False)),
        "crop and augment": (our_draw(pairs, augmented=True), monai_draw(pairs, augmented=True)),
    }
    for name, (ours, monai) in sides.items():
        ratios, speeds = [], []
        for repeat in range(arguments.repeats):
            pair = [patches_per_second(draw, arguments.patches, repeat) for draw in (ours, monai)]
            speeds.append(pair)
            ratios.append(pair[0] / pair[1])
        mine, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
        shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        print(f"{name}: ours {mine:.0f}/s, MONAI {theirs:.0f}/s, ratios {shown}")
    print_share_of_step(sides["crop and augment"][0], arguments.patches)


def phantoms(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (1, X, Y, Z) of mean 0 and deviation 1, and labels."""
    import nibabel as nib

    from pipeline.data.synthetic import make_phantoms

    make_phantoms(folder, cases=8, shape=SHAPE)
    pairs = []
    for path in sorted((folder / "images").iterdir()):
        image = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, np.float32)
        label = np.asarray(nib.as_closest_canonical(nib.load(folder / "labels" / path.name)).dataobj)
        pairs.append((((image - image.mean()) / image.std())[None], label.astype(np.uint8)))
    return pairs


class Memory:
    """Cases in memory, as the patch store gives them."""

    def __init__(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
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


def our_draw(pairs: list[tuple[np.ndarray, np.ndarray]], augmented: bool) -> Callable[[int], None]:
    from pipeline.data.augment import augment
    from pipeline.data.augment_config import AugmentConfig
    from pipeline.data.augment_spatial import spatial_margin
    from pipeline.data.patches import draw_batch

    store, config, spacing_mm = Memory(pairs), AugmentConfig(), (1.0, 1.0, 2.0)
    margin = spatial_margin(config, PATCH, spacing_mm) if augmented else (0, 0, 0)

    def draw(step: int) -> None:
        batch = draw_batch(store, list(store.pairs), PATCH, BATCH, 0, step, margin=margin)
        if augmented:
            image, label = torch.from_numpy(batch.image_BCXYZ), torch.from_numpy(batch.label_BXYZ)
            augment(image, label, config, 0, step, (0,), spacing_mm, PATCH)

    return draw


def monai_draw(pairs: list[tuple[np.ndarray, np.ndarray]], augmented: bool) -> Callable[[int], None]:
    from monai import transforms as mt
    from monai.data import CacheDataset, DataLoader

    from pipeline.data.augment_config import AugmentConfig

    both, config = ["image", "label"], AugmentConfig()
    angle = float(np.deg2rad(config.affine.rotation_degrees))
    steps: list = [
        mt.EnsureTyped(both),
        mt.SpatialPadd(both, PATCH),
        mt.ClassesToIndicesd("label", num_classes=4),
        mt.RandCropByLabelClassesd(
            both, "label", PATCH, ratios=[2, 1, 1, 1], num_classes=4, indices_key="label_cls_indices", warn=False
        ),
    ]
    if augmented:
        steps += [
            mt.RandAffined(
                both,
                prob=config.affine.prob,
                rotate_range=(angle,) * 3,
                scale_range=(-0.2, 0.25),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            mt.RandFlipd(both, prob=config.flip_prob, spatial_axis=0),
            mt.RandGaussianNoised("image", prob=config.noise.prob, std=config.noise.std[1]),
            mt.RandGaussianSmoothd("image", config.blur.sigma, config.blur.sigma, config.blur.sigma, config.blur.prob),
            mt.RandScaleIntensityd("image", factors=0.25, prob=config.brightness.prob + config.contrast.prob),
            mt.RandSimulateLowResolutiond(
                "image", prob=config.low_resolution.prob, zoom_range=config.low_resolution.zoom
            ),
            mt.RandAdjustContrastd("image", prob=config.gamma.prob, gamma=config.gamma.gamma, retain_stats=True),
        ]
    data = [{"image": image, "label": label[None]} for image, label in pairs] * 4
    loader = DataLoader(CacheDataset(data, mt.Compose(steps), progress=False), BATCH, shuffle=True, num_workers=0)
    stream = iter(loader)

    def draw(step: int) -> None:  # noqa: ARG001, MONAI's patches come from its own state
        nonlocal stream
        try:
            next(stream)
        except StopIteration:
            stream = iter(loader)
            next(stream)

    return draw


def patches_per_second(draw: Callable[[int], None], patches: int, repeat: int) -> float:
    draw(0)
    steps = -(-patches // BATCH)
    start = time.perf_counter()
    for step in range(steps):
        draw(repeat * steps + step)
    return steps * BATCH / (time.perf_counter() - start)


def print_share_of_step(draw: Callable[[int], None], patches: int) -> None:
    """CPU seconds of drawing and augmenting against those of a training step on all cores."""
    from pipeline.base.runtime import usable_cores
    from pipeline.planning.measure import Work, seconds_per_step

    start = time.process_time()
    for step in range(patches // BATCH):
        draw(step)
    beside = (time.process_time() - start) / (patches // BATCH)
    work = Work({"name": "unet", "channels": [16, 32, 64, 128]}, 1, 4, PATCH, BATCH)
    seconds = min(seconds_per_step(work, ["bf16", "fp32"], torch.device("cpu")).values())
    share = beside / (seconds * usable_cores())
    print(
        f"batch of {BATCH}: drawn in {1e3 * beside:.1f} ms of CPU, step {1e3 * seconds:.0f} ms: {share:.1%} of its CPU"
    )


if __name__ == "__main__":
    from pipeline.base.allocator import keep_freed_memory

    keep_freed_memory()
    main()
