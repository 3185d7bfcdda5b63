"""The service, started for real: a scan in, its segmentation out; load, attack, a killed worker and an orderly end."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from tests.serving.small_package import small_package

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

START = "import sys; from pathlib import Path; from pipeline.serving.http import serve; " \
        "sys.exit(serve(Path(sys.argv[1]), port=int(sys.argv[2]), device='cpu'))"  # fmt: skip
pytestmark = pytest.mark.slow  # each start of the service imports torch anew
QUEUE = 3
LIMITS = {"SEGPIPE_QUEUE": str(QUEUE), "SEGPIPE_MAX_UPLOAD_MIB": "2", "SEGPIPE_MAX_UNPACKED_MIB": "16"}


@dataclass
class Service:
    process: subprocess.Popen
    client: httpx.Client
    temporary: Path

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.client.get("/metrics").text, re.M)
        assert found, name
        return float(found.group(1))

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if "worker" in " ".join(child.cmdline())]

    def wait_until_ready(self) -> None:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/ready").status_code == 200:
                    return
            assert self.process.poll() is None, "the service ended"
            time.sleep(0.1)
        pytest.fail("the service did not become ready")


@contextlib.contextmanager
def _started(package: Path, **environment: str) -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = Path(tempfile.mkdtemp())
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(package), str(port)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), **LIMITS, **environment},
    )
    service = Service(process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120), temporary)
    try:
        service.wait_until_ready()
        yield service
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(temporary)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def service(package: Path) -> Iterator[Service]:
    with _started(package) as running:
        yield running


def _scan(shape: tuple[int, ...] = (36, 50, 34)) -> bytes:
    voxels = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    return gzip.compress(nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1])).to_bytes())


def _label_map(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_a_scan_gives_its_segmentation_on_its_own_grid(service: Service) -> None:
    answer = service.client.post("/predict", content=_scan())
    assert answer.status_code == 200
    image = _label_map(answer.content)
    assert image.shape == (36, 50, 34)
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, 1, 1, 1]))
    found = json.loads(answer.headers["X-Segpipe-Result"])
    voxels = np.asarray(image.dataobj)
    assert found["volumes_ml"] == pytest.approx(
        {"anterior": (voxels == 1).sum() / 1000, "posterior": (voxels == 2).sum() / 1000}
    )


def test_the_service_equals_segpipe_predict(service: Service, package: Path, tmp_path: Path) -> None:
    from pipeline.serving.predict import predict

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(_scan())
    predict(package, tmp_path / "in", tmp_path / "out", "cpu")
    served = _label_map(service.client.post("/predict", content=_scan()).content)
    expected = nib.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(served.dataobj), np.asarray(expected.dataobj))


def test_a_form_and_raw_bytes_are_one(service: Service) -> None:
    form = service.client.post("/predict", files={"file": ("John_Doe.nii.gz", _scan())})
    assert form.status_code == 200
    assert "John" not in str(form.headers)
    assert form.content == service.client.post("/predict", content=_scan()).content


def test_a_zip_of_a_real_dicom_series_is_segmented(service: Service, segpipe_data: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (segpipe_data / "hippocampus_dicom" / "11").iterdir():
            archive.write(path, f"DICOM/Dumbledore/{path.name}")
        archive.writestr("DICOM/README.txt", "no slice")
    answer = service.client.post("/predict", content=packed.getvalue())
    assert answer.status_code == 200, answer.text
    assert _label_map(answer.content).shape == (34, 50, 40)
    assert "umbledore" not in str(answer.headers)
    as_dicom = service.client.post("/predict?answer=dicom-seg", content=packed.getvalue())
    assert as_dicom.status_code == 200, as_dicom.text
    assert as_dicom.content[128:132] == b"DICM"


def test_the_model_card_is_served(service: Service) -> None:
    about = service.client.get("/model").json()
    assert about["name"] == "small"
    assert "not a medical device" in about["card"]
    assert [label["name"] for label in about["labels"]] == ["anterior", "posterior"]


def _promising(shape: tuple[int, int, int]) -> bytes:
    """A NIfTI whose header promises more voxels than it has."""
    data = bytearray(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<8h", data, 40, 3, *shape, 1, 1, 1, 1)
    return gzip.compress(bytes(data))


def _zip(entries: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return packed.getvalue()


ATTACKS = {
    "empty": (b"", 415),
    "wrong type": (b"%PDF-1.7 is no scan", 415),
    "gzip of text": (gzip.compress(b"hello" * 1000), 422),
    "truncated": (_scan()[:2000], 422),
    "a false promise": (_promising((30000, 30000, 30000)), 422),
    "gzip bomb": (_promising((300, 300, 300)) + gzip.compress(bytes(54 * 2**20)), 413),
    "larger than allowed": (os.urandom(3 * 2**20), 413),
    "4D": (_scan((20, 20, 20, 5)), 422),
    "zip bomb": (_zip({"scan.nii": bytes(100 * 2**20)}), 413),
    "zip of many files": (_zip({f"{k}.dcm": b"" for k in range(5000)}), 413),
    "zip that climbs": (_zip({"../../../tmp/segpipe-was-here.nii": b"x" * 400, "/etc/segpipe-was-here": b"x"}), 422),
    "zip without scans": (_zip({"readme.txt": b"hello"}), 415),
    "two scans": (_zip({"a.nii.gz": _scan(), "b.nii.gz": _scan()}), 422),
    "broken zip": (_zip({"a.nii.gz": _scan()})[:500], 422),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_sound_scan_gets_a_sentence_and_costs_nothing(service: Service, name: str) -> None:
    content, status = ATTACKS[name]
    before = psutil.Process(service.process.pid).memory_info().rss
    workers = service.metric("segpipe_worker_starts")
    answer = service.client.post("/predict", content=content)
    assert answer.status_code == status, answer.text
    assert len(answer.json()["detail"]) > 10
    assert "/tmp" not in answer.json()["detail"]
    assert psutil.Process(service.process.pid).memory_info().rss - before < 30 * 2**20
    assert not Path("/tmp/segpipe-was-here.nii").exists()
    assert not Path("/etc/segpipe-was-here").exists()
    assert service.metric("segpipe_worker_starts") == workers


def test_fifty_clients_at_once_none_is_lost(service: Service) -> None:
    """Each is answered: segmented, or told 429 with a time to come back; one and the whole queue are served."""

    def ask(_: int) -> tuple[int, str | None]:
        answer = httpx.post(f"{service.client.base_url}/predict", content=_scan(), timeout=300)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(ask, range(50)))
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 1 + QUEUE
    assert all(int(retry or 0) >= 1 for status, retry in answers if status == 429)
    assert service.client.post("/predict", content=_scan()).status_code == 200


def test_memory_is_flat_after_a_hundred_requests(service: Service) -> None:
    def resident() -> int:
        return sum(p.memory_info().rss for p in [psutil.Process(service.process.pid), *service.workers()])

    small = _scan((32, 32, 32))
    for _ in range(10):
        service.client.post("/predict", content=small)
    before = resident()
    for _ in range(100):
        assert service.client.post("/predict", content=small).status_code == 200
    assert resident() - before < 64 * 2**20
    time.sleep(0.5)  # the last request's folder goes after its answer
    assert not list(service.temporary.glob("segpipe-request-*"))


def test_a_killed_worker_is_replaced(package: Path) -> None:
    with _started(package) as service:
        service.workers()[0].kill()
        deadline = time.monotonic() + 60
        while service.metric("segpipe_worker_starts") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        service.wait_until_ready()
        assert service.client.post("/predict", content=_scan()).status_code == 200


def test_sigterm_finishes_the_running_case_and_leaves_no_worker(package: Path) -> None:
    with _started(package) as service, ThreadPoolExecutor(1) as client:
        running = client.submit(service.client.post, "/predict", content=_scan((60, 70, 60)))
        with httpx.Client(base_url=service.client.base_url) as other:
            while not re.search(r"^segpipe_queue_cases 1\.0$", other.get("/metrics").text, re.M):
                time.sleep(0.02)
        time.sleep(0.3)  # so that the case is with the worker
        workers = service.workers()
        service.process.send_signal(signal.SIGTERM)
        assert running.result().status_code == 200
        assert service.process.wait(30) == 0
        assert not any(worker.is_running() for worker in workers)


def test_a_token_is_asked_for_where_one_is_set(package: Path) -> None:
    with _started(package, SEGPIPE_TOKEN="s3cret") as service:
        assert service.client.get("/health").status_code == 200
        assert service.client.get("/model").status_code == 401
        assert service.client.post("/predict", content=b"x", headers={"Authorization": "Bearer no"}).status_code == 401
        assert service.client.get("/model", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_case_that_takes_too_long_is_ended_and_the_next_is_served(package: Path) -> None:
    with _started(package, SEGPIPE_TIMEOUT_S="0.05") as service:
        answer = service.client.post("/predict", content=_scan())
        assert answer.status_code == 503
        assert "took over 0.05 s" in answer.json()["detail"]
        assert "retry-after" in answer.headers
        service.wait_until_ready()
