"""Segmentation of cases with networks built from an `PredictorSpec`: in this process, or in one that may be lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from pipeline.base.child_process import child_command, describe_ending, read_messages, repeat_log_line, start_child
from pipeline.base.errors import ConfigError, DataError, SegpipeError
from pipeline.base.heap import ONE_POOL
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segmentation_jobs import CaseResult, Job

log = logging.getLogger(__name__)

WORKER = child_command("pipeline.inference.segmentation_worker")


class WorkerKilled(Exception):
    """The end of a worker by a signal, with so many cases in its hands: one with the network, another being written."""

    def __init__(self, ending: str, in_hands: int) -> None:
        super().__init__(f"the process that segmented it {ending}")
        self.in_hands = in_hands


def segment_in_subprocess(jobs: Sequence[Job], spec: PredictorSpec) -> Iterator[CaseResult]:
    """Segment every job in a process of its own and yield the results in order.

    If the kernel kills that process, any case in its hands may be the cause: each is tried once more, alone, with
    nothing else in memory. One that is killed again fails, and the others go on.
    """
    left, suspects = list(jobs), 0
    while left:
        first, alone = left[0], suspects > 0
        try:
            for result in _in_worker([first] if alone else left, spec, ahead=not alone):
                left.pop(0)
                yield result
        except WorkerKilled as killed:
            if not alone:
                suspects = min(max(killed.in_hands, 1), len(left))
                for job in left[:suspects]:
                    log.warning("%s  %s; trying it once more alone", job.id, killed)
                continue
            if left and left[0] is first:  # else it was killed after its result
                left.pop(0)
                yield CaseResult(first.id, "failed", f"{killed}, twice")
        suspects = max(suspects - 1, 0)


def _in_worker(jobs: Sequence[Job], spec: PredictorSpec, ahead: bool) -> Iterator[CaseResult]:
    """Yield the results of one worker process. Raises WorkerKilled if a signal ended it."""
    request = {"jobs": [job.to_json() for job in jobs], "spec": spec.to_json(), "ahead": ahead}
    worker = start_child(WORKER, request, ONE_POOL)
    if worker.stdout is None:
        raise AssertionError("the worker was started with a pipe for its answers")
    done, begun = 0, 0
    try:
        for answer in read_messages(worker.stdout):
            if "result" in answer:
                done += 1
                yield CaseResult(**answer["result"])
            elif "begun" in answer:
                begun += 1
            elif "error" in answer:
                raise _raised(answer["error"], answer["exit_code"])
            else:
                repeat_log_line(answer, log)
        code = worker.wait()
    finally:
        worker.kill()
        worker.wait()
    if code < 0:
        raise WorkerKilled(describe_ending(code), begun - done)
    if code > 0 or done < len(jobs):
        raise RuntimeError(
            f"the process that segments {describe_ending(code)} before all cases were done; what it said stands above"
        )


def _raised(message: str, exit_code: int) -> SegpipeError:
    kinds = {kind.exit_code: kind for kind in (ConfigError, DataError)}
    return kinds.get(exit_code, SegpipeError)(message)
