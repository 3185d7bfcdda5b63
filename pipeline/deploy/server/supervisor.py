"""Keeps one worker process alive, gives it one case at a time, and bounds how many wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.child_process import child_command, child_options, decode_message, encode_message
from pipeline.base.errors import EXIT_DATA, EXIT_USAGE
from pipeline.base.heap import ONE_POOL
from pipeline.deploy.server.worker_messages import ServiceTask

log = logging.getLogger(__name__)

_LONGEST_ANSWER = 2**20
_PAUSE_AFTER_A_FAILED_START_S = 5.0
_LONGEST_START_S = 300.0
_FIRST_GUESS_S = 10.0
_ENDING = "the service is about to end; try again, another may take its place"


class Busy(Exception):
    """The queue is full, or the service is about to end; `retry_after_s` says when to ask again."""

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class WorkerLost(Exception):
    """The worker ended, or was ended because it took too long; another one is being started."""


@dataclass
class Supervisor:
    """Owns the worker. `admitted` counts cases that run, wait, or are being uploaded; at most 1 + `queue` of them."""

    package: Path
    device: str
    queue: int
    timeout_s: float
    admitted: int = 0
    started: int = 0
    """Workers started so far; every one after the first replaces a lost one."""
    ready: bool = False
    draining: bool = False
    """The service ends after the running case."""
    peak_memory_gib: float = 0.0
    seconds_per_case: float | None = None
    """A moving average, once there is a case."""
    on_startup_failure: Callable[[int], object] = lambda code: None  # noqa: ARG005
    """Told the exit code of a first worker that never came so far as to be ready: no other one will."""
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _became_ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Starts the worker and whatever replaces it later."""
        self._keeper = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """Ends the worker; it finishes nothing more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._end_worker()

    @asynccontextmanager
    async def queue_slot(self) -> AsyncIterator[None]:
        """A place in the queue for as long as the context lasts; raises Busy at once where there is none."""
        if self.draining:
            raise Busy(_ENDING, 5)
        if self.admitted > self.queue:
            in_hand = "1 case is" if self.admitted == 1 else f"{self.admitted} cases are"
            raise Busy(f"{in_hand} in hand, and no more are taken now; try again later", self.expected_wait_s())
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    def expected_wait_s(self) -> int:
        """About how long until a place is free."""
        return max(1, round(_FIRST_GUESS_S if self.seconds_per_case is None else self.seconds_per_case))

    async def segment(self, task: ServiceTask) -> dict[str, Any]:
        """The worker's answer for one case. Raises Busy where the service ends before its turn, and WorkerLost.

        Cancelled while it waits, it gives up its turn; later, the worker is ended too: a new one is there sooner than
        an answer that nobody reads.
        """
        async with self._turn:
            if self.draining:
                raise Busy(_ENDING, 5)
            await self._until_ready()
            if self.draining:  # meanwhile
                raise Busy(_ENDING, 5)
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer = await self._ask(task)
            except TimeoutError:
                await self._end_worker()
                raise WorkerLost(f"the case took over {self.timeout_s:g} s and was ended") from None
            except WorkerLost:
                raise
            except (asyncio.CancelledError, Exception):  # its answer, if there will be one, is not the next case's
                await self._end_worker()
                raise
            before = float(answer["seconds"]) if self.seconds_per_case is None else self.seconds_per_case
            self.seconds_per_case = before + 0.3 * (float(answer["seconds"]) - before)
            self.peak_memory_gib = max(self.peak_memory_gib, float(answer["peak_memory_gib"]))
            return answer

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_START_S):
                await self._became_ready.wait()
        except TimeoutError:
            raise WorkerLost("no worker could be started; the service's log says why") from None

    async def _ask(self, task: ServiceTask) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerLost("the worker ended before the case began; try again")
        try:
            process.stdin.write(encode_message(task.to_json()))
            await process.stdin.drain()
            answer = decode_message(await process.stdout.readline())
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        if answer is None:
            self._not_ready()
            raise WorkerLost("the worker ended while it had this case, perhaps for want of memory; try again")
        return answer

    async def _keep_alive(self) -> None:
        ever_ready = False
        while True:
            try:
                process = await self._new_worker()
            except OSError as error:  # no memory, no process: for now
                log.warning("no worker could be started (%s); trying again", error.strerror)
                await asyncio.sleep(_PAUSE_AFTER_A_FAILED_START_S)
                continue
            self._process, self.started = process, self.started + 1
            first = await process.stdout.readline() if process.stdout is not None else b""
            if first:
                self.ready = ever_ready = True
                self._became_ready.set()
                log.info("worker %d is ready", self.started)
            code = await process.wait()
            self._not_ready()
            if not ever_ready and code in (EXIT_USAGE, EXIT_DATA):
                self.draining = True
                self._became_ready.set()  # who waits for a worker learns that there will be none
                self.on_startup_failure(code)
                return
            log.warning("worker %d ended with code %d; starting another", self.started, code)
            if not first:
                await asyncio.sleep(_PAUSE_AFTER_A_FAILED_START_S)

    async def _new_worker(self) -> asyncio.subprocess.Process:
        """Start a worker. Ctrl-C and SIGTERM are for the service alone, which lets the worker finish its case."""
        command = child_command("pipeline.deploy.server.worker_process", str(self.package.absolute()), self.device)
        return await asyncio.create_subprocess_exec(*command, limit=_LONGEST_ANSWER, **child_options(ONE_POOL))

    async def _end_worker(self) -> None:
        process = self._process
        self._not_ready()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _not_ready(self) -> None:
        self.ready = False
        self._became_ready.clear()
