"""Which program runs a package's networks, chosen by measurement.

The quickest to start is timed first. Where it has all windows done in seconds, nothing that could be gained would pay
for loading the others; else each runs one window of a real scan, and the fastest whose labels agree is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.stage import duration
from pipeline.inference.predictor import WindowModel

log = logging.getLogger(__name__)

WORTH_S = 10.0
"""Work of fewer seconds is not worth loading another program for."""
EQUAL_SHARE = 0.999
"""Of a window's voxels: how many must get the reference's label."""

Models = dict[str, WindowModel]


@dataclass(frozen=True)
class Candidate:
    """A way to run the networks. is_reference: its labels are what the others' are compared with."""

    name: str
    open: Callable[[], Models]
    is_reference: bool = False


@dataclass(frozen=True)
class Work:
    """What there is to do: so many windows, most of them by `model`; `window` gives one (1, C, *roi) of a real scan."""

    model: str
    windows: int
    window: Callable[[Models], NDArray[np.float32]]


@dataclass(frozen=True)
class _Measured:
    name: str
    models: Models
    seconds: float
    labels: NDArray


def choose(candidates: Sequence[Candidate], work: Work, overlapping: bool, empty_window: NDArray[np.float32]) -> Models:
    """The opened models of the candidate that is best for this work; candidates come in the order of their start-up.

    A candidate that cannot be opened or run (RuntimeError) or whose labels differ from the reference's in more than
    1 − EQUAL_SHARE of the voxels is left out, and the log says so. Raises RuntimeError where none can be run.
    """
    first = candidates[0].open()
    seconds = _seconds(first[work.model], empty_window)
    if len(candidates) == 1 or seconds * work.windows < WORTH_S:
        log.info(
            "backend   %s: %d windows take about %s", candidates[0].name, work.windows, duration(seconds * work.windows)
        )
        return first
    window = work.window(first)
    measured = [_measure(candidates[0].name, first, work.model, window, overlapping)]
    for candidate in candidates[1:]:
        try:
            measured.append(_measure(candidate.name, candidate.open(), work.model, window, overlapping))
        except RuntimeError as error:
            log.warning("backend   %s cannot be used: %s", candidate.name, str(error).splitlines()[0])
    return _fastest_that_agrees(measured, {c.name for c in candidates if c.is_reference})


def _fastest_that_agrees(measured: Sequence[_Measured], references: set[str]) -> Models:
    reference = next((one for one in measured if one.name in references), measured[0])
    shares = {one.name: float(np.mean(one.labels == reference.labels)) for one in measured}
    agreeing = [one for one in measured if shares[one.name] >= EQUAL_SHARE]
    best = min(agreeing, key=lambda one: one.seconds)
    others = "; ".join(
        f"{one.name} {one.seconds:.3f} s" + ("" if one in agreeing else f", but {shares[one.name]:.2%} equal labels")
        for one in measured
        if one is not best
    )
    log.info(
        "backend   %s: %.3f s a window, %.2f%% of the labels equal %s's (%s)",
        best.name, best.seconds, 100 * shares[best.name], reference.name, others,
    )  # fmt: skip
    return best.models


def _measure(name: str, models: Models, model: str, window: NDArray, overlapping: bool) -> _Measured:
    network = models[model]
    with network.working():
        logits = network.arrays.give(network(window))
        labels = logits > 0 if overlapping else logits.argmax(axis=1)
    return _Measured(name, models, _seconds(network, window), labels)


def _seconds(network: WindowModel, window: NDArray) -> float:
    """Of one window, the better of two after a first one."""
    times = []
    with network.working():
        for _ in range(3):
            started = time.perf_counter()
            network(window)
            times.append(time.perf_counter() - started)
    return min(times[1:])
