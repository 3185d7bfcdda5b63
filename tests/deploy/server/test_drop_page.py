"""The service's page in a real browser: drop a scan, wait, look, take the result along; and what may go wrong."""

from __future__ import annotations

import base64
import io
import json
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
from tests.chromium import Chromium, chromium, save
from tests.deploy.conftest import LIMITS, QUEUE
from tests.deploy.server.running_service import Service, label_map, nifti, started

pytestmark = pytest.mark.slow  # each start of the service imports torch anew

TOKEN = "gehéim"
NAME = "Dumbledore_Albus"


@pytest.fixture(scope="module")
def guarded(served_package: Path) -> Iterator[Service]:
    """A service with a token."""
    with started(served_package, **LIMITS, SEGPIPE_TOKEN=TOKEN) as service:
        service.client.headers["Authorization"] = f"Bearer {TOKEN}"  # sent as UTF-8
        yield service


@pytest.fixture
def page() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


def test_a_person_drops_a_scan_and_looks_at_the_result(guarded: Service, page: Chromium) -> None:
    page.prefer("light")
    page.open(guarded.url)
    _state(page, "ask-token")
    _give_token(page, "wrong")
    page.wait_for("document.getElementById('token-fault').textContent.includes('does not know')")
    _give_token(page, TOKEN)
    _state(page, "give")
    save(page.screenshot(), "drop_light.png")
    assert "Research use only" in page.run("document.body.innerText")
    assert "not a medical device" in page.run("document.getElementById('card').textContent")

    _drop(page, {f"{NAME}.nii.gz": nifti()})
    _drawn(page)
    seen = page.screenshot()
    save(seen, "drop_result_light.png")
    expected = guarded.client.post("/predict", content=nifti())
    volumes = json.loads(expected.headers["X-Segpipe-Result"])["volumes_ml"]
    rows = page.run("[...document.querySelectorAll('#rows tr')].map(row => row.innerText.trim().split(/\\s+/))")
    assert [row[0] for row in rows] == list(volumes)
    assert [float(row[1]) for row in rows] == pytest.approx(list(volumes.values()), rel=0.01)
    assert page.run("document.getElementById('download').download") == f"{NAME}_segmentation.nii.gz"
    assert _downloaded(page, "download") == expected.content

    assert _painted(seen) > 1000
    page.run("document.querySelectorAll('#rows input').forEach(box => box.click())")
    assert page.run("document.getElementById('all').checked") is False
    assert _painted(_settled(page)) < 0.02 * _painted(seen), "no structure is shown"
    page.run("document.getElementById('all').click()")
    assert _painted(_settled(page)) > 0.9 * _painted(seen)
    _set(page, "opacity", "0")
    assert _painted(_settled(page)) < 0.02 * _painted(seen), "an invisible segmentation leaves the scan grey"

    page.prefer("dark")
    _set(page, "opacity", "0.5")
    save(_settled(page), "drop_result_dark.png")
    _is_discreet(page, guarded)


def test_what_a_browser_cannot_read_itself_is_shown_too(
    service: Service, page: Chromium, segpipe_data: Path, tmp_path: Path
) -> None:
    """A DICOM series dropped as a folder's files, and .mha: the service gives the scan back as it read it."""
    page.open(service.url)
    _state(page, "give")
    series = {path.name: path.read_bytes() for path in (segpipe_data / "hippocampus_dicom" / "11").iterdir()}
    _drop(page, series)
    _drawn(page)
    assert page.run("document.getElementById('download').download") == "segmentation.nii.gz"
    assert label_map(_downloaded(page, "download")).shape == (34, 50, 40)
    assert _downloaded(page, "download-seg")[128:132] == b"DICM"
    save(_settled(page), "drop_dicom.png")

    page.run("document.getElementById('next').click()")
    _drop(page, {f"{NAME}.mha": _metaimage()})
    _drawn(page)
    assert page.run("document.getElementById('download').download") == f"{NAME}_segmentation.mha"
    assert _downloaded(page, "download").startswith(b"ObjectType")
    assert page.run("document.getElementById('download-seg').hidden") is True
    assert page.run("document.getElementById('place').textContent").count("intensity") == 1
    _is_discreet(page, service)


def test_what_goes_wrong_is_said_with_what_to_do(service: Service, page: Chromium) -> None:
    page.open(service.url)
    _state(page, "give")
    _drop(page, {f"{NAME}.nii.gz": nifti()[:2000]})
    _state(page, "fault")
    assert "cannot be segmented" in _fault(page) and "truncated" in _fault(page)
    save(page.screenshot(), "drop_fault_light.png")
    page.prefer("dark")
    save(page.screenshot(), "drop_fault_dark.png")
    _drop(page, {f"{NAME}.txt": b"no scan at all"})
    page.wait_for("document.getElementById('fault').innerText.includes('no scan that can be read')")
    before = len(page.requests)
    _drop(page, {f"{NAME}.nii": bytes(3 * 2**20)})
    page.wait_for("document.getElementById('fault').innerText.includes('At most 2 MiB')")
    assert len(page.requests) == before, "what is too large is not even sent"
    page.run("document.getElementById('other').click()")

    with ExitStack() as clients:
        for _ in range(1 + QUEUE):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", service.client.base_url.port)))
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        service.wait_for("segpipe_queue_cases", 1 + QUEUE)
        _drop(page, {f"{NAME}.nii.gz": nifti()})
        _state(page, "fault")
        assert "The service is busy" in _fault(page) and "4 cases are in hand" in _fault(page)
        assert "Try again in" in _fault(page)
        assert page.run("document.getElementById('again').disabled") is True
        save(page.screenshot(), "drop_busy.png")
    service.wait_for("segpipe_queue_cases", 0)
    page.wait_for("!document.getElementById('again').disabled")
    page.run("document.getElementById('again').click()")
    _drawn(page)
    _is_discreet(page, service)


def test_a_scan_unlike_the_training_data_is_remarked_on_and_a_case_can_be_cancelled(
    service: Service, page: Chromium
) -> None:
    page.open(service.url)
    _state(page, "give")
    _drop(page, {"small.nii.gz": nifti((8, 8, 8), spacing_mm=3)})
    _drawn(page)
    remark = page.run("document.getElementById('remark').innerText")
    assert "unlike those that the model was trained on" in remark and "spacing" in remark

    (worker,) = service.workers()
    worker.suspend()  # it is ended with its case, and another takes its place
    page.run("document.getElementById('next').click()")
    _drop(page, {"scan.nii.gz": nifti()})
    service.wait_for("segpipe_queue_cases", 1)
    page.wait_for("document.getElementById('phase').textContent === 'Segmenting'")
    save(page.screenshot(), "drop_work.png")
    page.run("document.getElementById('cancel').click()")
    _state(page, "give")
    service.wait_for("segpipe_queue_cases", 0)
    service.wait_until_ready()


def test_the_page_can_be_used_without_a_mouse_or_eyes(service: Service, page: Chromium) -> None:
    """Every control has a name, texts stand out from their ground, and a narrow window needs no sideways scrolling."""
    page.open(service.url)
    _state(page, "give")
    _drop(page, {"scan.nii.gz": nifti()})
    _drawn(page)
    nameless = """[...document.querySelectorAll('button, input, select, a, canvas, progress')].filter(e =>
        e.checkVisibility() && !(e.innerText || e.ariaLabel || e.labels?.[0]?.innerText)).map(e => e.id)"""
    assert page.run(nameless) == []
    assert page.run("document.activeElement.id") == "result-title"
    page.resize(360, 740)
    assert page.run("document.documentElement.scrollWidth") <= 360
    save(_settled(page), "drop_narrow.png")
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        for element in ("#download", "#next", ".notice", "#version", "#rows label"):
            assert page.run(_CONTRAST % element) >= 4.5, (scheme, element)


_CONTRAST = """((e) => {
  const light = (rgb) => rgb.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  let ground = e;
  while (ground.parentElement && rgb(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)),
                  light(rgb(getComputedStyle(ground).backgroundColor).slice(0, 3))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})(document.querySelector('%s'))"""


def _metaimage() -> bytes:
    voxels = np.random.default_rng(0).normal(100, 30, (34, 50, 36)).astype("<f4")
    head = "ObjectType = Image\nNDims = 3\nDimSize = 36 50 34\nElementSpacing = 1 1 1\nElementType = MET_FLOAT\n"
    return f"{head}ElementDataFile = LOCAL\n".encode() + voxels.tobytes()


def _drop(page: Chromium, files: Mapping[str, bytes]) -> None:
    """Drops files on the zone, as a person does from the desktop."""
    listed = json.dumps([[name, base64.b64encode(content).decode()] for name, content in files.items()])
    page.run("delete document.body.dataset.drawn")
    page.run(f"({_DROP})({listed})")


_DROP = """list => {
  const data = new DataTransfer();
  for (const [name, text] of list)
    data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
  document.getElementById('zone').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
}"""


def _give_token(page: Chromium, token: str) -> None:
    page.run(f"document.getElementById('token').value = {json.dumps(token)}")
    page.run("document.querySelector('#ask-token button').click()")


def _state(page: Chromium, state: str) -> None:
    page.wait_for(f"document.body.dataset.state === '{state}'")


def _drawn(page: Chromium) -> None:
    page.wait_for("document.body.dataset.drawn || document.body.dataset.state === 'fault'")
    assert page.run("document.body.dataset.state") == "result", _fault(page)
    assert page.run("document.body.classList.contains('unseen')") is False
    _settled(page)


def _fault(page: Chromium) -> str:
    return page.run("document.getElementById('fault').innerText")


def _set(page: Chromium, element: str, value: str) -> None:
    page.run(
        f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')); }})"
        f"(document.getElementById({json.dumps(element)}))"
    )


def _settled(page: Chromium) -> bytes:
    page.run("new Promise(done => setTimeout(done, 400))")
    return page.screenshot()


def _downloaded(page: Chromium, link: str) -> bytes:
    """The bytes behind a link of the page."""
    text = page.run(
        f"""fetch(document.getElementById('{link}').href).then(answer => answer.arrayBuffer())
        .then(bytes => btoa(Array.from(new Uint8Array(bytes), byte => String.fromCharCode(byte)).join('')))"""
    )
    return base64.b64decode(text)


def _painted(picture: bytes) -> int:
    """How many pixels of the drawing are coloured (the scan itself is grey)."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)[110:780, :950]
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 25).sum())


def _is_discreet(page: Chromium, service: Service) -> None:
    """Nothing from outside, no fault, and neither the file's name nor the token in an address or the service's log."""
    outside = [url for url in page.requests if not url.startswith((service.url, "data:", "blob:"))]
    assert outside == []
    assert [line for line in page.log if "Content Security Policy" in line or "Exception" in line] == []
    addresses = urllib.parse.unquote(" ".join(url for url in page.requests if url.startswith("http")))
    for secret in (NAME, "umbledore", TOKEN):
        assert secret not in addresses
        assert secret not in service.output.read_text()
