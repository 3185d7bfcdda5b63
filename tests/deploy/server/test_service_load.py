"""The service under load and misfortune: fifty clients, a hundred requests, killed workers, leavers, an orderly end."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.deploy.conftest import LIMITS, QUEUE

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
import httpx

from pipeline.base.errors import EXIT_USAGE
from tests.deploy.server.running_service import START, Service, nifti, started, wait_until, wait_until_it_has_a_case

pytestmark = pytest.mark.slow  # each start of the service imports torch anew


def test_fifty_clients_at_once_none_is_lost(service: Service) -> None:
    """Each is answered: segmented, or told 429 with a time to come back; one and the whole queue are served."""

    def ask(_: int) -> tuple[int, str | None]:
        answer = httpx.post(f"{service.url}/predict", content=nifti(), timeout=300)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(ask, range(50)))
    statuses = Counter(status for status, _ in answers)
    print(f"50 clients: {dict(statuses)}")
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 1 + QUEUE
    assert all(int(retry or 0) >= 1 for status, retry in answers if status == 429)
    assert service.client.post("/predict", content=nifti()).status_code == 200


def test_all_of_fifty_clients_are_served_that_come_back_when_they_are_told(service: Service) -> None:
    def ask_until_served(_: int) -> int:
        for asked in range(1, 200):
            answer = httpx.post(f"{service.url}/predict?answer=json", content=nifti((32, 32, 32)), timeout=300)
            if answer.status_code == 200:
                return asked
            assert answer.status_code == 429, answer.text
            time.sleep(int(answer.headers["retry-after"]))
        raise AssertionError("never served")

    with ThreadPoolExecutor(50) as clients:
        asked = list(clients.map(ask_until_served, range(50)))
    print(f"50 clients served; asked {min(asked)} to {max(asked)} times")


def test_memory_is_flat_after_a_hundred_requests(service: Service) -> None:
    """A leak shows: every request has at least a label map, of a byte a voxel, and an image of four to forget."""

    def resident() -> int:
        return sum(process.memory_info().rss for process in service.processes())

    shape, rounds, each = (32, 32, 32), 5, 20
    small, voxels = nifti(shape), math.prod(shape)
    for _ in range(10):
        service.client.post("/predict?answer=view", content=small)
    sizes = [resident()]
    for _ in range(rounds):
        for number in range(each):
            form = ("segmentation", "json", "view")[number % 3]
            assert service.client.post(f"/predict?answer={form}", content=small).status_code == 200
        sizes.append(resident())
    print(f"resident: {', '.join(f'{size / 2**20:.2f}' for size in sizes)} MiB, with {each} requests between")
    grown = [after - before for before, after in pairwise(sizes)]
    assert median(grown) < each * voxels  # what each request keeps is there in every round
    assert sum(grown) < rounds * each * 4 * voxels  # what some keep is there at the end
    _wait_until_empty(service)


def test_a_worker_that_is_killed_idle_or_at_work_is_replaced(served_package: Path) -> None:
    """The case in its hands is told to try again; the next one is served."""
    with started(served_package, **LIMITS) as service, ThreadPoolExecutor(1) as client:
        service.workers()[0].kill()
        service.wait_for("segpipe_worker_starts", 2)
        service.wait_until_ready()
        assert service.client.post("/predict", content=nifti()).status_code == 200

        (worker,) = service.workers()
        worker.suspend()  # so that the case is surely in its hands
        running = client.submit(httpx.post, f"{service.url}/predict", content=nifti(), timeout=120)
        wait_until_it_has_a_case(worker)
        worker.kill()
        lost = running.result()
        assert lost.status_code == 503 and int(lost.headers["retry-after"]) > 0
        assert "try again" in lost.json()["detail"]
        service.wait_for("segpipe_worker_starts", 3)
        assert service.client.post("/predict", content=nifti()).status_code == 200


def test_sigterm_finishes_the_running_case_sends_waiting_ones_away_and_leaves_no_worker(served_package: Path) -> None:
    announced = "SIGTERM: finishing the running case"
    with started(served_package, **LIMITS) as service, ThreadPoolExecutor(2) as clients:
        (worker,) = service.workers()
        worker.suspend()  # so that the first case surely runs when the end is announced
        running = clients.submit(httpx.post, f"{service.url}/predict", content=nifti(), timeout=120)
        wait_until_it_has_a_case(worker)
        waiting = clients.submit(httpx.post, f"{service.url}/predict", content=nifti(), timeout=120)
        service.wait_for_uploads(2)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: announced in service.output.read_text(), "the end is announced")
        worker.resume()
        assert running.result().status_code == 200
        assert waiting.result().status_code == 503 and "retry-after" in waiting.result().headers
        assert service.process.wait(30) == 0
        assert not worker.is_running()
        said = service.output.read_text()
    assert announced in said and "Traceback" not in said


def test_a_service_that_is_killed_leaves_no_worker_idle_or_at_work(served_package: Path) -> None:
    for is_at_work in (False, True):
        with started(served_package, **LIMITS) as service, ThreadPoolExecutor(1) as client:
            (worker,) = service.workers()
            if is_at_work:
                worker.suspend()  # so that the case is surely in its hands
                client.submit(httpx.post, f"{service.url}/predict", content=nifti(), timeout=120)
                wait_until_it_has_a_case(worker)
            service.process.kill()
            if is_at_work:
                worker.resume()
            assert not psutil.wait_procs([worker], timeout=60)[1]


def test_a_case_that_takes_too_long_is_ended_and_the_next_is_served(served_package: Path) -> None:
    with started(served_package, **LIMITS, SEGPIPE_TIMEOUT_S="5") as service:
        service.workers()[0].suspend()  # so that the case surely takes too long
        answer = service.client.post("/predict", content=nifti())
        assert answer.status_code == 503
        assert "took over 5 s" in answer.json()["detail"]
        assert "retry-after" in answer.headers
        service.wait_for("segpipe_worker_starts", 2)
        service.wait_until_ready()
        assert service.client.post("/predict", content=nifti()).status_code == 200


def test_a_client_that_leaves_gives_up_its_turn(served_package: Path) -> None:
    """One leaves while it sends, one while it waits, one while the worker has its case: no place and no file stays."""
    with started(served_package, **LIMITS) as service:
        with _raw(service) as sending:
            sending.sendall(_head(content_length=10**6) + b"x" * 1000)
            service.wait_for("segpipe_queue_cases", 1)
        service.wait_for("segpipe_queue_cases", 0)

        (worker,) = service.workers()
        worker.suspend()
        with _raw(service) as running:
            running.sendall(_head(len(nifti())) + nifti())
            wait_until_it_has_a_case(worker)
            with _raw(service) as waiting:
                waiting.sendall(_head(len(nifti())) + nifti())
                service.wait_for_uploads(2)
            service.wait_for("segpipe_queue_cases", 1)
            assert worker.is_running()
        service.wait_for("segpipe_queue_cases", 0)
        service.wait_for("segpipe_worker_starts", 2)
        assert service.metric('segpipe_requests_total{status="499"}') == 3
        assert service.client.post("/predict", content=nifti()).status_code == 200
        _wait_until_empty(service)
        assert "Traceback" not in service.output.read_text()


def test_a_client_that_still_sends_hears_that_the_queue_is_full(service: Service) -> None:
    """The whole body is taken and dropped, so that no reset overtakes the answer; the connection serves on."""
    with _full(service), _raw(service) as client:
        body = bytes(2**20)
        client.sendall(_head(len(body)) + body[:1000])
        status, answer = _answer(client)
        assert status == 429 and "4 cases are in hand" in answer["detail"]
        client.sendall(body[1000:])
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _answer(client) == (200, {"status": "alive"})


def test_a_client_that_asks_before_it_sends_is_refused_without_sending(service: Service) -> None:
    with _full(service), _raw(service) as client:
        client.sendall(_head(10**9, "Expect: 100-continue\r\n"))
        assert _answer(client)[0] in {413, 429}


@contextmanager
def _full(service: Service) -> Iterator[None]:
    """For as long as it lasts, every place is taken by a client that never finishes sending."""
    with ExitStack() as clients:
        for _ in range(1 + QUEUE):
            clients.enter_context(_raw(service)).sendall(_head(10**6) + b"x")
        service.wait_for("segpipe_queue_cases", 1 + QUEUE)
        yield
    service.wait_for("segpipe_queue_cases", 0)


def _raw(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.client.base_url.port), timeout=30)


def _head(content_length: int, further: str = "") -> bytes:
    return (f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {content_length}\r\n{further}\r\n").encode()


def _answer(client: socket.socket) -> tuple[int, dict]:
    """The next answer, read to its end and no further."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    length = int(re.search(rb"content-length: (\d+)", data, re.IGNORECASE)[1])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return int(data.split()[1]), json.loads(body)


def _wait_until_empty(service: Service) -> None:
    """A request's folder goes after its answer."""
    wait_until(lambda: not list(service.temporary.glob("segpipe-request-*")), "no scan is kept", seconds=20)


def test_a_service_whose_model_can_never_work_here_ends_and_says_why(served_package: Path) -> None:
    """No worker after it would fare better, and an orchestrator must not find it healthy."""
    command = [sys.executable, "-c", START.replace("'cpu'", "'cuda:99'"), str(served_package), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == EXIT_USAGE
    assert "cuda:99" in done.stderr and "so the service ends" in done.stderr
