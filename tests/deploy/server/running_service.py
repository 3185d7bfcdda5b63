"""The service as a process of its own, as `segpipe serve` starts it, and scans to send to it."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import psutil
import pytest

from pipeline.deploy.server.unpack_upload import SCAN

START = "import logging, sys; from pathlib import Path; from pipeline.deploy.server.serve import serve; " \
        "logging.basicConfig(level=logging.INFO); " \
        "sys.exit(serve(Path(sys.argv[1]), port=int(sys.argv[2]), device='cpu'))"  # fmt: skip


@dataclass
class Service:
    process: subprocess.Popen
    client: httpx.Client
    temporary: Path
    """Where it may write."""
    output: Path
    """All that it and its worker say."""

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.M)
        assert found, name
        return float(found.group(1))

    def wait_for(self, name: str, value: float, seconds: float = 60) -> None:
        """Until a figure of /metrics has this value."""
        wait_until(lambda: self.metric(name) == value, f"{name} becomes {value}", seconds)

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if "worker" in " ".join(child.cmdline())]

    def wait_for_uploads(self, number: int) -> None:
        """Until so many scans have come in whole and are unpacked, each in its request's folder."""
        wait_until(lambda: len(list(self.temporary.glob(f"segpipe-request-*/{SCAN}/*"))) == number, f"{number} scans")

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *self.workers()]

    def wait_until_ready(self) -> None:
        for _ in range(1200):
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/ready").status_code == 200:
                    return
            assert self.process.poll() is None, "the service ended"
            time.sleep(0.1)
        pytest.fail("the service did not become ready")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Asks again and again until it holds; fails if that takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def wait_until_it_has_a_case(suspended: psutil.Process) -> None:
    """Until the service has written a case to the pipe that this worker, which is suspended, reads from."""

    def unread() -> bool:
        with Path(f"/proc/{suspended.pid}/fd/0").open("rb", buffering=0) as pipe:
            return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) > 0

    wait_until(unread, "the worker has a case")


@contextlib.contextmanager
def started(package: Path, **environment: str) -> Iterator[Service]:
    """A service that is ready; environment: its variables beside those of the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = Path(tempfile.mkdtemp())
    output = temporary / "output.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(package), str(port)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), **environment},
            stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    # A connection for each request: one that lay idle may be closed by the server at the moment it is used again.
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=120, limits=httpx.Limits(max_keepalive_connections=0)
    )
    service = Service(process, client, temporary, output)
    try:
        service.wait_until_ready()
        yield service
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(temporary)


def nifti(shape: tuple[int, ...] = (36, 50, 34), description: str = "", spacing_mm: float = 1.0) -> bytes:
    """A .nii.gz of noise."""
    voxels = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([-spacing_mm, spacing_mm, spacing_mm, 1]))
    image.header["descrip"] = description.encode()
    return gzip.compress(image.to_bytes())


def label_map(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))
