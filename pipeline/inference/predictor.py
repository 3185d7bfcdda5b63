"""From an image to its segmentation on its own grid, in the memory of one slab."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.heap import HeapTrimmer, give_back_freed_memory
from pipeline.base.process_memory import forget_peak, peak_memory_gib, resident_memory_gib
from pipeline.inference.arrays.array_backend import Array
from pipeline.inference.check_scan import check_channels_and_voxels, enlargement
from pipeline.inference.logits_to_labels import LabelWriter, PredictionArrays, inside_crop, label_type
from pipeline.inference.memory_estimate import (
    FreeMemory,
    MemoryEstimate,
    MemoryEstimates,
    estimate_memory,
    free_memory_gib,
    reclaim_memory_gib,
)
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.resample_logits import Resampler
from pipeline.inference.slab_blending import Axes, SlabLayout, best_layout, blend
from pipeline.inference.sliding_window import importance_map
from pipeline.inference.window_model import WindowModel
from pipeline.io.canonical_orientation import to_canonical
from pipeline.io.geometry import Grid, resampled_grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import Plan
from pipeline.preprocessing.preprocess import PreprocessedImage, preprocess


@dataclass(frozen=True)
class Prediction:
    """A segmentation on the grid of its image.

    uncertainty: entropy map, disagreement: of an ensemble, probabilities (K, X, Y, Z): only where asked for. score: the
    mean entropy of the voxels that were found to belong to a structure, or where there are none, of all that were
    predicted (the whole volume but what a crop leaves out); None where it was not asked for.
    """

    labels: Volume
    windows: int
    uncertainty: Volume | None = None
    disagreement: Volume | None = None
    probabilities: Volume | None = None
    score: float | None = None


@dataclass(frozen=True)
class Prepared:
    """An image on the planned grid; `outline` has the grid and header of the image, but no voxels."""

    conformed: PreprocessedImage
    outline: Volume


@dataclass(frozen=True)
class Predictor:
    """A model with its plan and settings; `predict` may be called for any number of images.

    free_gib: says what may still be taken of the machine's memory.
    """

    plan: Plan
    model: WindowModel
    settings: PredictorConfig = field(default_factory=PredictorConfig)
    free_gib: FreeMemory = free_memory_gib

    def predict(self, image: Volume) -> Prediction:
        """Segments one image (C, X, Y, Z). Raises a DataError where it has not the plan's channels or finite voxels."""
        return self.predict_prepared(self.prepare(image))

    def prepare(self, image: Volume) -> Prepared:
        """Checks an image and conforms it to the plan; raises as `predict`. Uses no model: any thread may do it."""
        check_channels_and_voxels(image, [channel.name for channel in self.plan.channels])
        outline = image.with_array(np.broadcast_to(np.zeros((), np.uint8), image.grid.shape))
        return Prepared(preprocess(image, self.plan), outline)

    def needs(self, grid: Grid, as_read_bytes: int | None = None) -> MemoryEstimates:
        """The memory that an image on `grid` will take, cropping aside: known from its header alone.

        as_read_bytes: see `pipeline.inference.memory_estimate.bytes_as_read`; None: of one channel in four bytes.
        """
        return self._needs(grid.shape, self._planned(grid).shape, as_read_bytes)

    def enlargement(self, grid: Grid) -> str:
        """A sentence if the model's grid has many times the voxels of an image on `grid`; else empty."""
        return enlargement(grid, self._planned(grid))

    def _planned(self, grid: Grid) -> Grid:
        _, canonical = to_canonical(grid)
        return resampled_grid(canonical, self.plan.spacing_mm)

    def use_half_precision(self, needs: MemoryEstimates, held_gib: float = 0.0) -> bool:
        """Whether overlapping logits are kept in half precision: where the settings say so or fp32 does not fit.

        held_gib: what is in memory already of what was predicted. Raises a DataError where neither fits.
        """
        asked, theirs = self.settings.accumulate, self.model.arrays.free_gib()
        first = needs.half if asked == "half" else needs.fp32
        ours = self.reclaim_memory_gib(self.host_memory_gib(first) - held_gib)
        for half, need in ((False, needs.fp32), (True, needs.half)):
            if asked != "auto" and (asked == "half") != half:
                continue
            if self.host_memory_gib(need) - held_gib <= ours and (theirs is None or need.stores <= theirs):
                return half
        tried = needs.fp32 if asked == "fp32" else needs.half
        raise DataError(
            f"needs about {tried.peak:.1f} GiB of memory beside the {needs.base:.1f} GiB that the program takes, "
            f"but {max(ours, 0):.1f} GiB are free; end other programs, raise infer.memory_gib or use a larger machine"
            + ("" if theirs is None else f" ({tried.stores:.1f} GiB on the GPU, {theirs:.1f} free; or device: cpu)")
        )

    def reclaim_memory_gib(self, wanted_gib: float) -> float:
        """What may still be taken of the machine's memory, after what is kept unused is given back if need be."""
        return reclaim_memory_gib(wanted_gib, self.settings, self.free_gib)

    def host_memory_gib(self, need: MemoryEstimate) -> float:
        """What of a need is taken of this machine's own memory: what blending takes may lie on a GPU."""
        return need.peak if self.model.arrays.free_gib() is None else need.beside_stores

    @cached_property
    def network_gib(self) -> float:
        """The memory that one call of the network takes, its result included, where its logits live: measured once."""
        shape = (self.settings.sw_batch_size, len(self.plan.channels), *self.settings.window(self.plan.patch_size))
        with self.model.inference_context():
            give_back_freed_memory()  # else the call may take what the process has already, which no peak shows
            forget_peak()
            self.model.arrays.forget_peak()
            self.model(np.zeros(shape, np.float32))
            peak, theirs = peak_memory_gib(), self.model.arrays.peak_gib()
            give_back_freed_memory()
        return max(peak - resident_memory_gib(), 0.0) if theirs is None else theirs

    def _needs(
        self, image_shape: Sequence[int], planned_shape: Sequence[int], as_read_bytes: int | None = None
    ) -> MemoryEstimates:
        maps, network = int(self.model.disagreement), self.network_gib
        fp32, half = (
            estimate_memory(image_shape, planned_shape, self.plan, self.settings, half, network, maps, as_read_bytes)
            for half in (False, True)
        )
        return MemoryEstimates(fp32, half, resident_memory_gib())

    def predict_prepared(self, prepared: Prepared) -> Prediction:
        """Segments an image that `prepare` gave; raises a DataError where memory does not suffice."""
        shape, conformed = prepared.outline.grid.shape, prepared.conformed
        needs = self._needs(shape, conformed.grid.shape)
        half = self.use_half_precision(needs, conformed.image.nbytes / 2**30)
        labels = np.zeros(shape, label_type(self.plan.structures))
        entropy = np.zeros(shape, np.float32) if self.settings.uncertainty else None
        disagreement = np.zeros(shape, np.float32) if self.settings.uncertainty and self.model.disagreement else None
        probabilities = np.zeros((self.plan.out_channels, *shape), np.float32) if self.settings.probabilities else None
        if probabilities is not None and not self.plan.overlapping:
            probabilities[0] = 1  # outside the crop there is only background
        everything = [labels, entropy, disagreement, probabilities]
        targets = [None if a is None else inside_crop(a, conformed) for a in everything]
        stores_gib = (needs.half if half else needs.fp32).stores
        windows = self._paint(conformed, half, targets, stores_gib)
        _, uncertainty, divergence, chances = (
            None if a is None else prepared.outline.with_array(a) for a in everything
        )
        return Prediction(
            labels=prepared.outline.with_array(labels),
            windows=windows,
            uncertainty=uncertainty,
            disagreement=divergence,
            probabilities=chances,
            score=_mean_entropy(targets[0], targets[1]),
        )

    def _paint(
        self, conformed: PreprocessedImage, half: bool, targets: Sequence[NDArray | None], stores_gib: float
    ) -> int:
        """Fills the targets, views on the cropped canonical grid; returns how many windows it took."""
        image = conformed.image
        arrays, settings = self.model.arrays, self.settings
        layout, axes = best_layout(image.shape[1:], settings.window(self.plan.patch_size), settings, half)
        weight = importance_map(layout.windows.roi_size, settings.mode, settings.sigma_scale)
        channels = self.plan.out_channels + int(self.model.disagreement)
        competing = 0 if self.plan.overlapping else self.plan.out_channels
        painting = PredictionArrays(*(None if t is None else _permuted(t, axes) for t in targets))  # type: ignore[arg-type]
        painter = LabelWriter(self.plan.structures, self.plan.overlapping, arrays)
        with self.model.inference_context():
            logits = self._logits(_permuted(image, axes), layout, axes, HeapTrimmer(stores_gib))
            blocks = blend(layout, logits, arrays.from_numpy(weight), channels, arrays, competing)
            order = sorted(range(3), key=lambda axis: -axes[axis])
            resampler = Resampler(layout.windows.image_shape, painting.labels.shape, channels, arrays, order)
            for box in resampler.boxes(blocks):
                painter.paint(box, painting)
        return layout.windows.count

    def _logits(self, image: NDArray, layout: SlabLayout, axes: Axes, kept: HeapTrimmer) -> Iterator[Array]:
        """Logits (K, …) of every window in the layout's order and axes; the network sees the planned axes."""
        back = (0, *(1 + int(i) for i in np.argsort(axes)))
        forth = (0, *(1 + axis for axis in axes))
        corners = layout.corners()
        while batch := list(itertools.islice(corners, self.settings.sw_batch_size)):
            kept.trim()
            windows = np.stack([layout.windows.cut(image, corner).transpose(back) for corner in batch])
            # map keeps nothing of the last result, which a loop variable would, while the next one is computed
            yield from map(partial(self.model.arrays.permute, axes=forth), self.model(windows))


def _mean_entropy(labels: NDArray | None, entropy: NDArray | None) -> float | None:
    """Of what was found, or of everything where nothing was."""
    if labels is None or entropy is None:
        return None
    count = sum(int(np.count_nonzero(plane)) for plane in labels)
    if not count:
        return float(entropy.mean(dtype=np.float64))
    # Plane by plane: what was found may be most of a scan, and would be copied.
    return sum(float(e[plane > 0].sum(dtype=np.float64)) for e, plane in zip(entropy, labels, strict=True)) / count


def _permuted(array: NDArray, axes: Axes) -> NDArray:
    """A view with the spatial axes in another order."""
    lead = array.ndim - 3
    return array.transpose((*range(lead), *(lead + axis for axis in axes)))
