"""Which program runs a package's networks, chosen by measurement.

The quickest to start is timed first. Each other one is tried, in the order of their start-up, where what it could gain
over the best so far would pay for loading it: it runs one window of a real scan, and the fastest whose labels agree is
kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import SegpipeError
from pipeline.base.terminal import format_duration
from pipeline.inference.window_model import WindowModel

log = logging.getLogger(__name__)

POSSIBLE_GAIN = 0.5
"""The share of the time that another program may save; trying it must cost less."""
EQUAL_SHARE = 0.999
"""Of a window's voxels: how many must get the reference's label."""

Models = dict[str, WindowModel]


@dataclass(frozen=True)
class Candidate:
    """A way to run the networks. is_reference: labels that equal its are right. loading_s: about what opening takes."""

    name: str
    open: Callable[[], Models]
    is_reference: bool = False
    loading_s: float = 2.0


@dataclass(frozen=True)
class Workload:
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


def select_backend(
    candidates: Sequence[Candidate],
    work: Workload,
    overlapping: bool,
    empty_window: NDArray[np.float32],
    clock: Callable[[], float] = time.perf_counter,
) -> Models:
    """The opened models of the candidate that is best for this work; candidates come in the order of their start-up.

    A candidate that cannot be opened or run, or whose labels equal those of no reference in EQUAL_SHARE of the voxels,
    is left out, and the log says so. Raises what the last one raises where none can be run, and every SegpipeError.
    clock: gives the time in seconds, from any start.
    """
    candidates, first, seconds = _begin(candidates, work.model, empty_window, clock)
    window, measured = None, list[_Measured]()
    for candidate in candidates[1:]:
        best = min((one.seconds for one in measured), default=seconds)
        doubtful = candidate.is_reference and not _agree(measured)
        if not doubtful and POSSIBLE_GAIN * best * work.windows <= candidate.loading_s + 2 * best:
            continue
        if window is None:
            window = work.window(first)
            measured.append(_measure(candidates[0].name, first, work.model, window, overlapping, clock))
        try:
            measured.append(_measure(candidate.name, candidate.open(), work.model, window, overlapping, clock))
        except SegpipeError:
            raise
        except Exception as error:  # each of these libraries has kinds of its own, whose only common base this is
            _say_unusable(candidate, error)
    if not measured:
        log.info(
            "backend   %s: %d windows take about %s",
            candidates[0].name,
            work.windows,
            format_duration(seconds * work.windows),
        )
        return first
    return _fastest_that_agrees(measured, {c.name for c in candidates if c.is_reference})


def _begin(
    candidates: Sequence[Candidate], model: str, window: NDArray[np.float32], clock: Callable[[], float]
) -> tuple[Sequence[Candidate], Models, float]:
    """The first candidate that runs with those behind it, its models, and the seconds that it takes for a window."""
    for number, candidate in enumerate(candidates):
        try:
            models = candidate.open()
            return candidates[number:], models, _seconds(models[model], window, clock, warm=False)
        except SegpipeError:
            raise
        except Exception as error:
            if number == len(candidates) - 1:
                raise
            _say_unusable(candidate, error)
    raise AssertionError("there is at least one candidate")


def _say_unusable(candidate: Candidate, error: Exception) -> None:
    log.debug("backend   %s", candidate.name, exc_info=error)
    said = str(error).splitlines() or [type(error).__name__]
    log.warning("backend   %s cannot be used: %s", candidate.name, said[0])


def _agree(measured: Sequence[_Measured]) -> bool:
    return all(float(np.mean(one.labels == measured[0].labels)) >= EQUAL_SHARE for one in measured)


def _fastest_that_agrees(measured: Sequence[_Measured], references: set[str]) -> Models:
    right = [one for one in measured if one.name in references] or measured[:1]
    shares = {one.name: max(float(np.mean(one.labels == other.labels)) for other in right) for one in measured}
    agreeing = [one for one in measured if shares[one.name] >= EQUAL_SHARE]
    best = min(agreeing, key=lambda one: one.seconds)
    others = "; ".join(
        f"{one.name} {one.seconds:.3f} s" + ("" if one in agreeing else f", but {shares[one.name]:.2%} equal labels")
        for one in measured
        if one is not best
    )
    agrees = ""
    if best not in right:
        agrees = f", {shares[best.name]:.2%} of its labels equal those of {' or '.join(one.name for one in right)}"
    log.info("backend   %s: %.3f s a window%s (%s)", best.name, best.seconds, agrees, others)
    return best.models


def _measure(
    name: str, models: Models, model: str, window: NDArray, overlapping: bool, clock: Callable[[], float]
) -> _Measured:
    network = models[model]
    with network.inference_context():
        logits = network.arrays.to_numpy(network(window))
        labels = logits > 0 if overlapping else logits.argmax(axis=1)
    return _Measured(name, models, _seconds(network, window, clock), labels)


def _seconds(network: WindowModel, window: NDArray, clock: Callable[[], float], warm: bool = True) -> float:
    """Of one window; `warm`: after the network has run before."""
    with network.inference_context():
        if not warm:
            network(window)
        started = clock()
        network(window)
        return clock() - started
