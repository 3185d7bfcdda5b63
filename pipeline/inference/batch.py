"""Many cases, one after the other through the model, while the next is read and the last is written.

A case that cannot be done is reported and the others go on. What a case takes of memory is predicted from its header,
before anything is read: one that does not fit is refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.base.allocator import keep_freed_memory
from pipeline.base.errors import DataError, SegpipeError
from pipeline.base.resident import forget_peak, peak_memory_gib
from pipeline.data.formats import read_header, read_image, without_texts, write_label
from pipeline.data.volume import Volume
from pipeline.inference.jobs import CaseResult, Job
from pipeline.inference.memory import Needs, free_memory_gib
from pipeline.inference.outputs import MAPS, map_path, write_image
from pipeline.inference.postprocess import postprocess
from pipeline.inference.predictor import Prediction, Predictor, Prepared

log = logging.getLogger(__name__)

CASE_FAULTS = (Exception,)
"""What a single case may raise without ending the batch: a bad file, little memory, a full disk, a fault of ours."""


_LARGE_GIB = 1.0

Guard = Callable[[Volume], Sequence[str]]
"""Says in what a scan is unlike the training data, one sentence each."""


@dataclass(frozen=True)
class Reading:
    """An image on its way to the model, and what there is to remark on it."""

    prepared: Prepared
    remarks: str


def segment(
    jobs: Sequence[Job],
    predictor_of: Callable[[str], Predictor],
    guard: Guard | None = None,
    strict: bool = False,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
) -> Iterator[CaseResult]:
    """Segments cases and yields what became of each, in order, once its files are written.

    begun: is told each case before the model works on it; the one before may still be in writing, and not yielded yet.
    ahead: the next case is read while the model works, where memory suffices for both. strict: a case on which `guard`
    has something to remark fails; else the remark is its message.
    """
    needs = _announce(jobs, predictor_of)
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:

        def read(job: Job) -> Reading:
            predictor = predictor_of(job.model)
            if job.id in needs:
                predictor.choose(needs[job.id])
            image = read_image(job.images, predictor.plan.resample_channels)
            remarks = "; ".join(guard(image)) if guard else ""
            if remarks and strict:
                raise DataError(f"unlike the training data: {remarks}")
            if enlargement := predictor.enlargement(image.grid):
                log.warning("%s  %s, which takes its time%s", job.id, enlargement, f"; {remarks}" if remarks else "")
            return Reading(predictor.prepare(image), remarks)

        readings: list[Future[Reading]] = []
        writing: Future[CaseResult] | None = None
        try:
            for number, job in enumerate(jobs):
                pair = jobs[number : number + 2]
                near = pair if ahead and _both_fit(pair, needs, predictor_of) else pair[:1]
                readings += [reader.submit(read, later) for later in near[len(readings) :]]
                begun(job.id)
                following = _work(job, readings.pop(0), predictor_of(job.model), writer)
                if writing is not None:
                    yield writing.result()
                writing = following
            if writing is not None:
                yield writing.result()
        finally:
            for reading in readings:
                reading.cancel()


def _announce(jobs: Sequence[Job], predictor_of: Callable[[str], Predictor]) -> dict[str, Needs]:
    """What each case whose header can be read will need; the largest is said before anything is read."""
    needs = {}
    for job in jobs:
        predictor = predictor_of(job.model)
        try:
            grid = read_header(job.images[0]).grid
            predictor.enlargement(grid)
            needs[job.id] = predictor.needs(grid)
        except CASE_FAULTS:
            continue  # reading the case will say what is wrong with it
    if needs:
        largest = max(needs, key=lambda case: needs[case].fp32.peak)
        log.info("memory    %s, for the largest case (%s)", needs[largest], largest)
        if needs[largest].fp32.stores < _LARGE_GIB:
            keep_freed_memory()  # with large blocks, what is freed is cut up and the process outgrows its need
    return needs


def _both_fit(pair: Sequence[Job], needs: Mapping[str, Needs], predictor_of: Callable[[str], Predictor]) -> bool:
    """Whether the second case may be read while the first is worked on."""
    if len(pair) < 2 or any(job.id not in needs for job in pair):
        return True
    first, second = needs[pair[0].id], needs[pair[1].id]
    free = free_memory_gib(predictor_of(pair[0].model).settings)
    return first.fp32.peak + second.fp32.reading + second.fp32.held <= free


def _work(job: Job, reading: Future[Reading], predictor: Predictor, writer: ThreadPoolExecutor) -> Future[CaseResult]:
    """Predicts one case here and leaves the writing to `writer`."""
    started = time.monotonic()
    forget_peak()
    try:
        _remove_earlier(job)
        remarks = reading.result().remarks
        prediction = predictor.predict_prepared(reading.result().prepared)
    except CASE_FAULTS as error:
        return _already(_failure(job, error, started))

    def finish() -> CaseResult:
        try:
            _write(job, prediction, predictor)
        except CASE_FAULTS as error:
            return _failure(job, error, started)
        seconds = time.monotonic() - started
        return CaseResult(job.id, "done", remarks, seconds, peak_memory_gib(), prediction.score, job.output.name)

    return writer.submit(finish)


def _write(job: Job, prediction: Prediction, predictor: Predictor) -> None:
    """The label map, and beside it what else was asked for; the label map last, since it says that all is there."""
    beside = {
        "uncertainty": prediction.uncertainty,
        "disagreement": prediction.disagreement,
        "probabilities": prediction.probabilities,
    }
    for what, volume in beside.items():
        if volume is not None:
            write_image(map_path(job.output, what), volume if job.texts else without_texts(volume))
    labels = postprocess(prediction.labels, predictor.settings.postprocess, predictor.plan)
    write_label(job.output, labels if job.texts else without_texts(labels))


def _remove_earlier(job: Job) -> None:
    """What an earlier scan of this name left, so that it is not taken for this one's where this one fails."""
    for path in (job.output, *(map_path(job.output, what) for what in MAPS)):
        if path not in job.images:
            path.unlink(missing_ok=True)


def _already(result: CaseResult) -> Future[CaseResult]:
    future: Future[CaseResult] = Future()
    future.set_result(result)
    return future


def _failure(job: Job, error: BaseException, started: float) -> CaseResult:
    if not isinstance(error, SegpipeError):
        log.debug("case %s", job.id, exc_info=error)
    message = str(error) if isinstance(error, SegpipeError) else f"{type(error).__name__}: {error}"
    return CaseResult(job.id, "failed", message, time.monotonic() - started, peak_memory_gib())
