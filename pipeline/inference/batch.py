"""Many cases, one after the other through the model, while the next is read and the last is written.

A case that cannot be done is reported and the others go on. What is finished is noted in a journal, so that an
interrupted batch goes on where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline.base.errors import DataError, SegpipeError
from pipeline.base.files import read_json, write_json
from pipeline.data.formats import read_image, write_label
from pipeline.data.volume import Volume
from pipeline.inference.memory import forget_peak, peak_memory_gib
from pipeline.inference.outputs import map_path, write_image
from pipeline.inference.postprocess import postprocess
from pipeline.inference.predictor import Prediction, Predictor, Prepared

log = logging.getLogger(__name__)

CASE_FAULTS = (SegpipeError, MemoryError, OSError, RuntimeError, ValueError, ArithmeticError)
"""What a single case may raise without ending the batch: a bad file, too little memory, a full disk."""


@dataclass(frozen=True)
class Job:
    """One case to segment: its image files (one a channel, or one 4D file) and the file to write."""

    id: str
    images: tuple[Path, ...]
    output: Path
    model: str = ""
    """Which of several predictors does it, for instance a fold."""


@dataclass(frozen=True)
class CaseResult:
    """What became of one case. score: mean uncertainty of what was found, where it was asked for."""

    id: str
    status: Literal["done", "failed"]
    message: str = ""
    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    score: float | None = None


Guard = Callable[[Volume], Sequence[str]]
"""Says in what a scan is unlike the training data, one sentence each."""


@dataclass(frozen=True)
class Reading:
    """An image on its way to the model, and what there is to remark on it."""

    prepared: Prepared
    remarks: str


def segment(
    jobs: Sequence[Job], predictor_of: Callable[[str], Predictor], guard: Guard | None = None, strict: bool = False
) -> Iterator[CaseResult]:
    """Segments cases and yields what became of each, in order, once its files are written.

    The next case is read while the model works, which takes the memory of one more image. strict: a case on which
    `guard` has something to remark fails; else the remark is its message.
    """
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:

        def read(job: Job) -> Reading:
            image = read_image(job.images)
            remarks = "; ".join(guard(image)) if guard else ""
            if remarks and strict:
                raise DataError(f"unlike the training data: {remarks}")
            return Reading(predictor_of(job.model).prepare(image), remarks)

        ahead: list[Future[Reading]] = []
        writing: Future[CaseResult] | None = None
        try:
            for number, job in enumerate(jobs):
                ahead += [reader.submit(read, later) for later in jobs[number + len(ahead) : number + 2]]
                following = _work(job, ahead.pop(0), predictor_of(job.model), writer)
                if writing is not None:
                    yield writing.result()
                writing = following
            if writing is not None:
                yield writing.result()
        finally:
            for reading in ahead:
                reading.cancel()


def _work(job: Job, reading: Future[Reading], predictor: Predictor, writer: ThreadPoolExecutor) -> Future[CaseResult]:
    """Predicts one case here and leaves the writing to `writer`."""
    started = time.monotonic()
    forget_peak()
    try:
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
        return CaseResult(job.id, "done", remarks, seconds, peak_memory_gib(), prediction.score)

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
            write_image(map_path(job.output, what), volume)
    write_label(job.output, postprocess(prediction.labels, predictor.settings.postprocess, predictor.plan))


def _already(result: CaseResult) -> Future[CaseResult]:
    future: Future[CaseResult] = Future()
    future.set_result(result)
    return future


def _failure(job: Job, error: BaseException, started: float) -> CaseResult:
    if not isinstance(error, SegpipeError):
        log.debug("case %s", job.id, exc_info=error)
    message = str(error) if isinstance(error, SegpipeError) else f"{type(error).__name__}: {error}"
    return CaseResult(job.id, "failed", message, time.monotonic() - started, peak_memory_gib())


class Journal:
    """What a batch has finished, in one file that is rewritten after every case.

    `request` says what is computed with what: a journal of another request is begun anew.
    """

    def __init__(self, path: Path, request: str) -> None:
        self.path, self.request = path, request
        self.results: dict[str, CaseResult] = {}
        if path.is_file() and (content := read_json(path)).get("request") == request:
            self.results = {entry["id"]: CaseResult(**entry) for entry in content["cases"]}

    def left_of(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that are not done, failed ones included."""
        return [job for job in jobs if not (self._is_done(job.id) and job.output.is_file())]

    def add(self, result: CaseResult) -> None:
        """Notes a case."""
        self.results[result.id] = result
        write_json(self.path, {"request": self.request, "cases": [asdict(entry) for entry in self.results.values()]})

    def _is_done(self, case: str) -> bool:
        return case in self.results and self.results[case].status == "done"
