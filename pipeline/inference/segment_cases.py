"""Many cases, one after the other through the model, while the next is read and the last is written.

A case that cannot be done is reported and the others go on. What a case takes of memory is predicted from its header,
before anything is read: one that does not fit is refused.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from pipeline.base.errors import DataError, SegpipeError
from pipeline.base.heap import give_back_freed_memory, keep_freed_memory
from pipeline.base.process_memory import forget_peak, peak_memory_gib
from pipeline.inference.build_predictors import build_predictors
from pipeline.inference.domain_check import domain_shift_reasons
from pipeline.inference.memory_estimate import MemoryEstimates, bytes_as_read
from pipeline.inference.output_paths import map_path, remove_earlier_outputs
from pipeline.inference.postprocessing.postprocess import postprocess
from pipeline.inference.predictor import Prediction, Predictor, Prepared
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segmentation_jobs import CASE_FAULTS, CaseResult, Job
from pipeline.io.read_image import read_image
from pipeline.io.read_image_header import read_image_header
from pipeline.io.volume import Volume
from pipeline.io.write_image import write_image
from pipeline.io.write_label import strip_description, write_label

log = logging.getLogger(__name__)


_LARGE_GIB = 1.0
_LARGE_SCAN_BYTES = 2**23
"""From this size on, what reading a scan leaves freed is given back: that costs milliseconds, its windows seconds."""

Guard = Callable[[Volume], Sequence[str]]
"""Says in what a scan is unlike the training data, one sentence each."""


@dataclass(frozen=True)
class PreparedCase:
    """An image on its way to the model, and what there is to remark on it."""

    prepared: Prepared
    remarks: str


def segment_cases(
    jobs: Sequence[Job],
    predictor_of: Callable[[str], Predictor],
    guard: Guard | None = None,
    strict: bool = False,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
    *,
    write: Callable[[Path, Volume], object] = write_label,
) -> Iterator[CaseResult]:
    """Segments cases and yields what became of each, in order, once its files are written.

    begun: is told each case before the model works on it; the one before may still be in writing, and not yielded yet.
    ahead: the next case is read while the model works, where memory suffices for both. strict: a case on which `guard`
    has something to remark fails; else the remark is its message. write: puts a label map into its file.
    """
    needs, peaks = estimate_cases(jobs, predictor_of), CasePeaks()
    read = partial(_read_and_prepare, predictor_of=predictor_of, needs=needs, guard=guard, strict=strict)
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        readings: list[Future[PreparedCase]] = []
        writing: Future[CaseResult] | None = None
        try:
            for number, job in enumerate(jobs):
                predictor = predictor_of(job.model)
                fits = partial(_fit, job, _prefetched_gib(readings), predictor, needs)
                if writing is not None and not fits(writing=jobs[number - 1]):
                    yield writing.result()
                    writing = None
                last = None if writing is None else jobs[number - 1]
                later = [one for one in jobs[number + 1 : number + 2] if ahead and fits(reading=one, writing=last)]
                readings = readings or [reader.submit(read, job)]
                readings += [reader.submit(read, one, known_to_fit=one.id in needs) for one in later]
                begun(job.id)
                writing_gib = needs[job.id].fp32.writing if job.id in needs else 0.0
                following = _work(job, readings.pop(0), predictor, writer, writing_gib, peaks, write)
                if writing is not None:
                    yield writing.result()
                writing = following
            if writing is not None:
                yield writing.result()
        finally:
            for reading in readings:
                reading.cancel()


def _read_and_prepare(
    job: Job,
    predictor_of: Callable[[str], Predictor],
    needs: Mapping[str, MemoryEstimates],
    guard: Guard | None,
    strict: bool,
    known_to_fit: bool = False,
) -> PreparedCase:
    """Read a case and bring it onto the planned grid; a DataError if it cannot be segmented with sense."""
    predictor = predictor_of(job.model)
    if job.id in needs and not known_to_fit:
        predictor.use_half_precision(needs[job.id])
    image = read_image(job.images, predictor.plan.resample_channels)
    large = image.array.nbytes >= _LARGE_SCAN_BYTES
    if large:
        give_back_freed_memory()  # the voxels as stored: a hole too small for the image on its new grid
    remarks = "; ".join(guard(image)) if guard else ""
    if remarks and strict:
        raise DataError(f"unlike the training data: {remarks}")
    if enlargement := predictor.enlargement(image.grid):
        log.warning("%s  %s, which takes its time%s", job.id, enlargement, f"; {remarks}" if remarks else "")
    prepared = predictor.prepare(image)
    del image
    if large:
        give_back_freed_memory()  # the image as read: stores are larger or smaller, and would not fill its hole
    return PreparedCase(prepared, remarks)


def estimate_cases(jobs: Sequence[Job], predictor_of: Callable[[str], Predictor]) -> dict[str, MemoryEstimates]:
    """What each case whose header can be read will need; the largest is said before anything is read."""
    needs = {}
    for job in jobs:
        predictor = predictor_of(job.model)
        try:
            headers = [read_image_header(path) for path in job.images]
            predictor.enlargement(headers[0].grid)
            needs[job.id] = predictor.needs(headers[0].grid, bytes_as_read(headers))
        except CASE_FAULTS:
            continue  # reading the case will say what is wrong with it
    if needs:
        largest = max(needs, key=lambda case: needs[case].fp32.peak)
        log.info("memory    %s, for the largest case (%s)", needs[largest], largest)
        if needs[largest].fp32.stores < _LARGE_GIB:
            keep_freed_memory()  # with large blocks, what is freed is cut up and the process outgrows its need
    return needs


def _prefetched_gib(readings: Sequence[Future[PreparedCase]]) -> float:
    """What of the case at hand is in memory already: its image, where it was read ahead. Waits for that to end."""
    if not readings or readings[0].exception() is not None:
        return 0.0
    return readings[0].result().prepared.conformed.image.nbytes / 2**30


def _fit(
    job: Job,
    held_gib: float,
    predictor: Predictor,
    needs: Mapping[str, MemoryEstimates],
    reading: Job | None = None,
    writing: Job | None = None,
) -> bool:
    """Whether a case, of which `held_gib` is there, may be worked on and the next one be read (where there is room for
    all of it too, once this one is done), beside what the writing of the last one may yet take."""
    # A case whose header cannot be read takes nothing: it will fail.
    wanted = predictor.host_memory_gib(needs[job.id].fp32) - held_gib if job.id in needs else 0.0
    wanted += needs[writing.id].fp32.writing if writing is not None and writing.id in needs else 0.0
    if reading is not None and reading.id in needs:
        following, on_gpu = needs[reading.id], predictor.model.arrays.free_gib()
        if on_gpu is not None and following.half.stores > on_gpu:
            return False  # refused before it is read, once it is its turn
        wanted = max(wanted + following.fp32.reading, predictor.host_memory_gib(following.fp32))
    return wanted <= predictor.reclaim_memory_gib(wanted)


def _work(
    job: Job,
    reading: Future[PreparedCase],
    predictor: Predictor,
    writer: ThreadPoolExecutor,
    writing_gib: float,
    peaks: CasePeaks,
    write: Callable[[Path, Volume], object],
) -> Future[CaseResult]:
    """Predicts one case here and leaves the writing, which takes `writing_gib`, to `writer`."""
    started = time.monotonic()
    peaks.begin(job.id)

    def failure(error: BaseException) -> CaseResult:
        return CaseResult(job.id, "failed", _message(job, error), time.monotonic() - started, peaks.gib(job.id))

    try:
        remove_earlier_outputs(job)
        remarks = reading.result().remarks
        made = [predictor.predict_prepared(reading.result().prepared)]
    except CASE_FAULTS as error:
        return _completed(failure(error))
    del reading  # its image, before writing begins

    def finish() -> CaseResult:
        prediction = made.pop()  # out of this function, which the thread lets go of only after the result is told
        try:
            predictor.reclaim_memory_gib(writing_gib)
            _write(job, prediction, predictor, write)
        except CASE_FAULTS as error:
            return failure(error)
        measured, backend = (time.monotonic() - started, peaks.gib(job.id)), predictor.model.backend
        return CaseResult(job.id, "done", remarks, *measured, prediction.score, job.output.name, backend)

    return writer.submit(finish)


def _write(job: Job, prediction: Prediction, predictor: Predictor, write: Callable[[Path, Volume], object]) -> None:
    """The label map, and beside it what else was asked for; the label map last, since it says that all is there."""
    beside = {
        "uncertainty": prediction.uncertainty,
        "disagreement": prediction.disagreement,
        "probabilities": prediction.probabilities,
    }
    for what, volume in beside.items():
        if volume is not None:
            write_image(map_path(job.output, what), volume if job.texts else strip_description(volume))
    labels = postprocess(prediction.labels, predictor.settings.postprocess, predictor.plan)
    write(job.output, labels if job.texts else strip_description(labels))


def _completed(result: CaseResult) -> Future[CaseResult]:
    future: Future[CaseResult] = Future()
    future.set_result(result)
    return future


def _message(job: Job, error: BaseException) -> str:
    """What to say of a fault, whose traceback then holds no image any more."""
    if not isinstance(error, SegpipeError):
        log.debug("case %s", job.id, exc_info=error)
    traceback.clear_frames(error.__traceback__)
    return str(error) if isinstance(error, SegpipeError) else f"{type(error).__name__}: {error}"


class CasePeaks:
    """The largest resident set of the process while each case was at hand: from its beginning to that of the next one.

    A process has one peak, and a case is still being written when the next one begins: what is seen then is the
    next one's.
    """

    def __init__(self) -> None:
        self._lock, self._at_hand, self._gib = Lock(), "", dict[str, float]()

    def begin(self, case: str) -> None:
        """From now on `case` is at hand."""
        with self._lock:
            self._gib[self._at_hand] = peak_memory_gib()
            forget_peak()
            self._at_hand = case

    def gib(self, case: str) -> float:
        """Of a case that has begun; until now, where it is at hand."""
        with self._lock:
            return peak_memory_gib() if case == self._at_hand else self._gib[case]


def segment_in_process(
    jobs: Sequence[Job],
    spec: PredictorSpec,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
) -> Iterator[CaseResult]:
    """Segment every job in this process and yield the results in order; `begun` is told each case before."""
    if not jobs:
        return
    guard = (
        None
        if spec.fingerprint is None
        else partial(domain_shift_reasons, plan=spec.plan, fingerprint=spec.fingerprint)
    )
    yield from segment_cases(jobs, build_predictors(spec, jobs), guard, spec.strict, ahead, begun)
