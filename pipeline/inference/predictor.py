"""From an image to its segmentation on its own grid, in the memory of one slab."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.data.conform import Conformed, conform
from pipeline.data.plan import Plan
from pipeline.data.volume import Volume
from pipeline.inference.arrays import Array, Arrays
from pipeline.inference.paint import Painter, Painting, label_type
from pipeline.inference.restore import Resampler
from pipeline.inference.settings import InferenceSettings
from pipeline.inference.slab import SlabLayout, blend
from pipeline.inference.windows import WindowGrid, importance_map, window_grid

Axes = tuple[int, int, int]


class WindowModel(Protocol):
    """Anything that turns windows into logits, with torch or without."""

    @property
    def arrays(self) -> Arrays:
        """Where its logits live."""

    @property
    def disagreement(self) -> bool:
        """Whether a channel after the classes says how much an ensemble's networks disagree."""

    def __call__(self, windows: NDArray) -> Array:
        """Windows (N, C, *roi) fp32 to logits (N, K, *roi) fp32."""

    def working(self) -> AbstractContextManager[None]:
        """Entered around all work with the model and its arrays."""


@dataclass(frozen=True)
class Prediction:
    """A segmentation on the grid of its image.

    uncertainty: entropy map, disagreement: of an ensemble, probabilities (K, X, Y, Z): only where asked for. score: the
    mean entropy of the voxels that were found to belong to a structure, None where there are none or it was not asked.
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

    conformed: Conformed
    outline: Volume


@dataclass(frozen=True)
class Predictor:
    """A model with its plan and settings; `predict` may be called for any number of images."""

    plan: Plan
    model: WindowModel
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    half: bool = False
    """Whether overlapping logits are kept in half precision."""

    def predict(self, image: Volume) -> Prediction:
        """Segments one image (C, X, Y, Z). Raises a DataError where it has not the plan's channels or finite voxels."""
        return self.predict_prepared(self.prepare(image))

    def prepare(self, image: Volume) -> Prepared:
        """Checks an image and conforms it to the plan; raises as `predict`. Uses no model: any thread may do it."""
        self._check(image)
        outline = image.with_array(np.broadcast_to(np.zeros((), np.uint8), image.grid.shape))
        return Prepared(conform(image, self.plan), outline)

    def predict_prepared(self, prepared: Prepared) -> Prediction:
        """Segments an image that `prepare` gave."""
        shape, conformed = prepared.outline.grid.shape, prepared.conformed
        labels = np.zeros(shape, label_type(self.plan.structures))
        entropy = np.zeros(shape, np.float32) if self.settings.uncertainty else None
        disagreement = np.zeros(shape, np.float32) if self.settings.uncertainty and self.model.disagreement else None
        probabilities = np.zeros((self.plan.out_channels, *shape), np.float32) if self.settings.probabilities else None
        if probabilities is not None and not self.plan.overlapping:
            probabilities[0] = 1  # outside the crop there is only background
        everything = [labels, entropy, disagreement, probabilities]
        windows = self._paint(conformed, [None if a is None else _inside(a, conformed) for a in everything])
        _, uncertainty, divergence, chances = (
            None if a is None else prepared.outline.with_array(a) for a in everything
        )
        return Prediction(
            labels=prepared.outline.with_array(labels),
            windows=windows,
            uncertainty=uncertainty,
            disagreement=divergence,
            probabilities=chances,
            score=float(entropy[labels > 0].mean()) if entropy is not None and labels.any() else None,
        )

    def _check(self, image: Volume) -> None:
        """Refuses what would be segmented without sense."""
        channels = [channel.name for channel in self.plan.channels]
        if image.array.ndim != 4 or image.array.shape[0] != len(channels):
            found = image.array.shape[0] if image.array.ndim == 4 else 1
            raise DataError(f"{found} channel(s) found, but the model takes {len(channels)}: {', '.join(channels)}")
        for name, channel in zip(channels, image.array, strict=True):
            bad = sum(int(plane.size - np.isfinite(plane).sum()) for plane in channel)
            if bad:
                raise DataError(
                    f"channel {name} has {bad} voxel(s) that are NaN or infinite; "
                    "replace them by a value that means nothing (for CT -1024, else 0) where that is true of them"
                )

    def layout(self, shape: Sequence[int]) -> tuple[SlabLayout, Axes]:
        """The windows over a planned grid and the order of its axes that keeps the least memory."""
        return best_layout(shape, self.plan.patch_size, self.settings, self.half)

    def _paint(self, conformed: Conformed, targets: Sequence[NDArray | None]) -> int:
        """Fills the targets, views on the cropped canonical grid; returns how many windows it took."""
        image = conformed.image
        layout, axes = self.layout(image.shape[1:])
        arrays, weight = (
            self.model.arrays,
            importance_map(layout.windows.roi_size, self.settings.mode, self.settings.sigma_scale),
        )
        channels = self.plan.out_channels + int(self.model.disagreement)
        competing = 0 if self.plan.overlapping else self.plan.out_channels
        painting = Painting(*(None if t is None else _permuted(t, axes) for t in targets))  # type: ignore[arg-type]
        painter = Painter(self.plan.structures, self.plan.overlapping, arrays)
        with self.model.working():
            logits = self._logits(_permuted(image, axes), layout, axes)
            blocks = blend(layout, logits, arrays.take(weight), channels, arrays, competing)
            resampler = Resampler(layout.windows.image_shape, painting.labels.shape, channels, arrays)
            for box in resampler.boxes(blocks):
                painter.paint(box, painting)
        return layout.windows.count

    def _logits(self, image: NDArray, layout: SlabLayout, axes: Axes) -> Iterator[Array]:
        """Logits (K, …) of every window in the layout's order and axes; the network sees the planned axes."""
        back = (0, *(1 + int(i) for i in np.argsort(axes)))
        forth = (0, *(1 + axis for axis in axes))
        corners = layout.corners()
        while batch := list(itertools.islice(corners, self.settings.sw_batch_size)):
            windows = np.stack([layout.windows.cut(image, corner).transpose(back) for corner in batch])
            for logits in self.model(windows):
                yield self.model.arrays.permute(logits, forth)


def best_layout(
    shape: Sequence[int], roi_size: Sequence[int], settings: InferenceSettings, half: bool
) -> tuple[SlabLayout, Axes]:
    """The layout of windows whose stores are smallest over all orders of the axes; (0, 1, 2) unless it is worse."""

    def layout(axes: Axes) -> SlabLayout:
        grid: WindowGrid = window_grid(
            [shape[a] for a in axes], [roi_size[a] for a in axes], settings.overlap, settings.starts
        )
        return SlabLayout.of(grid, half)

    def kept(axes: Axes) -> float:
        stored, tile = layout(axes).voxels_kept()
        return stored * (0.5 if half else 1.0) + tile

    orders: list[Axes] = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = min(orders, key=kept)
    chosen = orders[0] if kept(orders[0]) <= 1.1 * kept(best) else best
    return layout(chosen), chosen


def _inside(array: NDArray, conformed: Conformed) -> NDArray:
    """The view of an array on the image's grid that the model's box covers, in canonical axes."""
    lead = (slice(None),) * (array.ndim - 3)
    return conformed.axis_map.apply(array)[(*lead, *conformed.crop)]


def _permuted(array: NDArray, axes: Axes) -> NDArray:
    """A view with the spatial axes in another order."""
    lead = array.ndim - 3
    return array.transpose((*range(lead), *(lead + axis for axis in axes)))
