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
from pipeline.base.runtime import available_memory_gib, with_this_program
from pipeline.inference.jobs import CaseResult, Job
from pipeline.serving.spec import EngineSpec

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "pipeline.serving.batch_worker")
"""-P: nothing is imported from the folder that the command was called in."""


class WorkerKilled(Exception):
    """The worker ended by a signal, with a case in its hands (None: with none)."""

    def __init__(self, number: int, case: str | None) -> None:
        super().__init__(f"signal {number}")
        self.number, self.case = number, case


def segment_here(
    jobs: Sequence[Job],
    spec: EngineSpec,
    ahead: bool = True,
    begun: Callable[[str], object] = lambda case: None,  # noqa: ARG005
) -> Iterator[CaseResult]:
    """Segments every job in this process and yields what became of it, in order; `begun` is told each before."""
    from pipeline.inference.batch import segment
    from pipeline.serving.engine import open_predictors
    from pipeline.serving.guard import unlike_training

    if not jobs:
        return
    guard = None if spec.fingerprint is None else partial(unlike_training, plan=spec.plan, fingerprint=spec.fingerprint)
    yield from segment(jobs, open_predictors(spec, jobs), guard, spec.strict, ahead, begun)


def segment_isolated(jobs: Sequence[Job], spec: EngineSpec) -> Iterator[CaseResult]:
    """Segments every job in a process of its own and yields what became of it, in order but for what follows.

    Where the kernel kills that process, the case in its hands is named and tried next, alone, with nothing else in
    memory; killed again, it fails and the others go on.
    """
    left, alone = list(jobs), False
    while left:
        first = left[0]
        try:
            for result in _in_worker([first] if alone else left, spec, ahead=not alone):
                left.pop(0)
                yield result
            alone = False
        except WorkerKilled as killed:
            reason = _reason(killed.number)
            if alone:
                alone = False
                if left and left[0] is first:  # else it was killed after its result
                    left.pop(0)
                    yield CaseResult(first.id, "failed", f"the process that segmented it was {reason}, twice")
            elif left:
                left.sort(key=partial(_comes_after, killed.case))  # stable: the one in its hands first
                log.warning("%s  the process that segmented it was %s; trying it once more alone", left[0].id, reason)
                alone = True


def _comes_after(case: str | None, job: Job) -> bool:
    return job.id != case


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
        env=with_this_program(),
    )
    if worker.stdin is None or worker.stdout is None:
        raise AssertionError("the worker was started with pipes")
    done, in_hands = 0, None
    try:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
        for line in worker.stdout:
            answer = json.loads(line)
            if "result" in answer:
                done += 1
                yield CaseResult(**answer["result"])
            elif "begun" in answer:
                in_hands = answer["begun"]
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
        raise WorkerKilled(-code, in_hands)
    if code > 0 or done < len(jobs):
        raise RuntimeError(
            f"the process that segments ended with {code} before all cases were done; what it said stands above"
        )


def _raised(message: str, exit_code: int) -> SegpipeError:
    kinds = {kind.exit_code: kind for kind in (ConfigError, DataError)}
    return kinds.get(exit_code, SegpipeError)(message)
