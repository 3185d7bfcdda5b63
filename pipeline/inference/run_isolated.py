"""Segments a list of cases with networks built from an `EngineSpec`: in this process, or in one that may be lost."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pipeline.base.errors import ConfigError, DataError, SegpipeError
from pipeline.base.heap import ONE_POOL
from pipeline.base.machine import available_memory_gib, subprocess_env
from pipeline.inference.predictor_spec import EngineSpec
from pipeline.inference.segmentation_jobs import CaseResult, Job

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "pipeline.inference.segmentation_worker")
"""-P: nothing is imported from the folder that the command was called in."""


class WorkerKilled(Exception):
    """The worker ended by a signal, with so many cases in its hands: one with the network, another being written."""

    def __init__(self, number: int, in_hands: int) -> None:
        super().__init__(f"signal {number}")
        self.number, self.in_hands = number, in_hands


def segment_in_process(
    jobs: Sequence[Job],
    spec: EngineSpec,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
) -> Iterator[CaseResult]:
    """Segments every job in this process and yields what became of it, in order; `begun` is told each before."""
    from pipeline.inference.build_predictors import build_predictors
    from pipeline.inference.domain_check import domain_shift_reasons
    from pipeline.inference.segment_cases import segment_cases

    if not jobs:
        return
    guard = (
        None
        if spec.fingerprint is None
        else partial(domain_shift_reasons, plan=spec.plan, fingerprint=spec.fingerprint)
    )
    yield from segment_cases(jobs, build_predictors(spec, jobs), guard, spec.strict, ahead, begun)


def segment_in_subprocess(jobs: Sequence[Job], spec: EngineSpec) -> Iterator[CaseResult]:
    """Segments every job in a process of its own and yields what became of it, in order.

    Where the kernel kills that process, any case in its hands may be the cause: each is tried once more, alone, with
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
            reason = _reason(killed.number)
            if not alone:
                suspects = min(max(killed.in_hands, 1), len(left))
                for job in left[:suspects]:
                    log.warning("%s  the process that segmented it was %s; trying it once more alone", job.id, reason)
                continue
            if left and left[0] is first:  # else it was killed after its result
                left.pop(0)
                yield CaseResult(first.id, "failed", f"the process that segmented it was {reason}, twice")
        suspects = max(suspects - 1, 0)


def _reason(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"killed ({name}), most likely for want of memory ({available_memory_gib():.1f} GiB are free now)"
    return f"ended by {name}"


def _in_worker(jobs: Sequence[Job], spec: EngineSpec, ahead: bool) -> Iterator[CaseResult]:
    """The results of one worker process; raises WorkerKilled where it was lost."""
    request = {"jobs": [job.to_json() for job in jobs], "spec": spec.to_json(), "ahead": ahead}
    worker = subprocess.Popen(  # noqa: S603
        WORKER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=subprocess_env() | ONE_POOL,
    )
    if worker.stdin is None or worker.stdout is None:
        raise AssertionError("the worker was started with pipes")
    done, begun = 0, 0
    try:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
        for line in worker.stdout:
            answer = json.loads(line)
            if "result" in answer:
                done += 1
                yield CaseResult(**answer["result"])
            elif "begun" in answer:
                begun += 1
            elif "error" in answer:
                raise _raised(answer["error"], answer["exit_code"])
            else:
                log.log(answer["level"], "%s", answer["log"])
        code = worker.wait()
    except BrokenPipeError:
        code = worker.wait()
    finally:
        worker.kill()
        worker.wait()
    if code < 0:
        raise WorkerKilled(-code, begun - done)
    if code > 0 or done < len(jobs):
        raise RuntimeError(
            f"the process that segments ended with {code} before all cases were done; what it said stands above"
        )


def _raised(message: str, exit_code: int) -> SegpipeError:
    kinds = {kind.exit_code: kind for kind in (ConfigError, DataError)}
    return kinds.get(exit_code, SegpipeError)(message)
