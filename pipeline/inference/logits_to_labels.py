"""From finished boxes of logits to what is kept of them: label values, and on request uncertainty and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.label_encoding import written_values
from pipeline.inference.arrays.array_backend import Array, Arrays, Leading
from pipeline.inference.resample_logits import Box
from pipeline.preprocessing.preprocess import PreprocessedImage


@dataclass(frozen=True)
class PredictionArrays:
    """Where results go: arrays (or views of them) with the axes and shape of the boxes' target.

    entropy: 0 where the network is sure, 1 where every class is as likely as the others (overlapping structures: the
    least sure structure's, in bits). disagreement: see `backends/torch_backend.py`. probabilities: (K, X, Y, Z).
    """

    labels: NDArray
    entropy: NDArray | None = None
    disagreement: NDArray | None = None
    probabilities: NDArray | None = None


def label_type(structures: Mapping[str, tuple[int, ...]]) -> np.dtype:
    """The smallest unsigned integer type that holds every label value."""
    return np.min_scalar_type(max((max(values) for values in structures.values()), default=0))


class LabelWriter:
    """Paints boxes of class logits (or, for `overlapping` structures, one logit per structure)."""

    def __init__(self, structures: Mapping[str, tuple[int, ...]], overlapping: bool, arrays: Arrays) -> None:
        values = written_values(structures)
        self.arrays, self.overlapping = arrays, overlapping
        self.classes = len(structures) + (0 if overlapping else 1)
        self._table = np.array([0, *values.values()], label_type(structures))
        by_extent = sorted(range(len(structures)), key=lambda i: -len(list(structures.values())[i]))
        self._order = {channel: rank for rank, channel in enumerate(by_extent)}

    def paint(self, box: Box, painting: PredictionArrays) -> None:
        """Writes one box. Channels after the classes are maps of their own: the disagreement of an ensemble."""
        everything = painting.entropy is not None or painting.probabilities is not None
        leading: Leading | None = None
        seen: NDArray | None = None
        for chunk in box.chunks:
            inside = max(min(self.classes - chunk.first, len(chunk.logits)), 0)
            logits, others = chunk.logits[:inside], chunk.logits[inside:]
            if inside:
                leading = self._winner(logits, chunk.first, leading)
            if everything:
                seen = np.empty((self.classes, *chunk.logits.shape[1:]), np.float32) if seen is None else seen
                seen[chunk.first : chunk.first + inside] = self.arrays.to_numpy(logits)
            if len(others) and painting.disagreement is not None:
                painting.disagreement[box.place] = self.arrays.to_numpy(others[0])
        if leading is None:
            raise AssertionError("a box has at least one class")
        painting.labels[box.place] = self._table[self.arrays.to_numpy(leading[1]).astype(np.intp)]
        if seen is not None:
            self._paint_probabilities(seen, box.place, painting)

    def _winner(self, logits: Array, first: int, leading: Leading | None) -> Leading:
        """The leading class so far and its logit; for overlapping structures the innermost that is present."""
        if not self.overlapping:
            return self.arrays.running_argmax(logits, first, leading)
        for k, logit in enumerate(logits, start=first):
            present = logit > 0
            rank = present * (self._order[k] + 1)
            if leading is None:
                leading = rank, present * (k + 1)
                continue
            best, index = leading
            better = rank > best
            leading = best + better * (rank - best), index + better * ((k + 1) - index)
        return leading  # type: ignore[return-value]

    def _paint_probabilities(self, logits: NDArray, place: tuple[slice, ...], painting: PredictionArrays) -> None:
        """Plane by plane, since all that is computed on the way is as large as the logits several times over."""
        for i, plane in enumerate(range(place[0].start, place[0].stop)):
            here: tuple[int | slice, ...] = (plane, *place[1:])
            p = _sigmoid(logits[:, i]) if self.overlapping else _softmax(logits[:, i])
            if painting.probabilities is not None:
                painting.probabilities[(slice(None), *here)] = p
            if painting.entropy is not None:
                painting.entropy[here] = self._entropy(p)

    def _entropy(self, p: NDArray) -> NDArray:
        """Of each voxel, as a share of its largest possible value; the most of any structure where they overlap."""
        both = np.stack([p, 1 - p]) if self.overlapping else p[None]
        surprise = -(both * np.log(np.maximum(both, np.finfo(np.float32).tiny)))
        if self.overlapping:
            return surprise.sum(axis=0).max(axis=0) / np.log(2)
        return surprise[0].sum(axis=0) / np.log(len(p))


def _softmax(logits: NDArray) -> NDArray:
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0)


def _sigmoid(logits: NDArray) -> NDArray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


def inside_crop(array: NDArray, conformed: PreprocessedImage) -> NDArray:
    """The view of an array on the image's grid that the model's box covers, in canonical axes."""
    lead = (slice(None),) * (array.ndim - 3)
    return conformed.axis_map.apply(array)[(*lead, *conformed.crop)]
