"""The viewer: for this machine alone, by number and never by path, and usable in a real browser."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError
from pipeline.viewer.run_data import load_viewer_run
from pipeline.viewer.viewer_server import Viewer, view
from pipeline.web.browser_volumes import relabel
from tests.chromium import chromium, save
from tests.reporting.fake_run import AFFINE, fake_run

HOSTILE_ID = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("view")
    shift = {"good": 0, "bad": 5, HOSTILE_ID: 2}
    fake_run(root, ids=("good", "bad", HOSTILE_ID, "lost"), failed={"lost": "truncated"}, shift_of=shift)
    return root / "run"


@pytest.fixture
def viewer(run: Path) -> Iterator[Viewer]:
    with Viewer(load_viewer_run(run)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _get(viewer: Viewer, path: str, host: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{viewer.server_port}")
    connection.endheaders()
    return connection.getresponse()


def test_cases_come_worst_first_and_those_without_a_prediction_do_not_come(viewer: Viewer):
    listing = json.loads(_get(viewer, f"/{viewer.token}/cases.json").read())
    assert [case["id"] for case in listing["cases"]] == ["bad", HOSTILE_ID, "good"]
    assert listing["cases"][2]["dice"] == 1.0
    assert listing["cases"][0]["scores"]["organ"]["dice"] < 0.7
    assert listing["channels"] == [{"name": "T1", "window": None}]
    assert "subject" not in json.dumps(listing)


def test_the_address_in_the_browser_s_command_line_is_good_once(viewer: Viewer):
    path = viewer.url_for_once().removeprefix(f"http://127.0.0.1:{viewer.server_port}")
    assert viewer.token not in path
    assert _get(viewer, path, method="HEAD").status == HTTPStatus.NOT_FOUND  # and does not use it up
    first, second = _get(viewer, path), _get(viewer, path)
    assert (first.status, first.getheader("Location")) == (HTTPStatus.SEE_OTHER, viewer.url)
    assert (second.status, second.getheader("Location")) == (HTTPStatus.NOT_FOUND, None)


def test_a_browser_in_the_terminal_gets_its_page_before_it_returns(run: Path, monkeypatch: pytest.MonkeyPatch):
    """As lynx and w3m do it: the command that starts them ends when their reader is done."""
    pages = []

    def browse(url: str) -> None:
        try:
            with urllib.request.urlopen(url, timeout=2) as page:
                pages.append(page.read())
        finally:
            if threading.current_thread() is not threading.main_thread():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # as its reader ends `segpipe view`

    monkeypatch.setattr(webbrowser, "open", browse)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin by ignoring it
    try:
        view(run)
    finally:
        signal.signal(signal.SIGINT, before)
    assert b"<html" in pages[0]


def test_volumes_are_the_data_on_its_own_grid_with_labels_numbered_by_structure(viewer: Viewer, run: Path):
    def volume(name: str) -> nib.Nifti1Image:
        return nib.Nifti1Image.from_bytes(_get(viewer, f"/{viewer.token}/case/0/{name}.nii").read())

    image, reference, prediction = volume("image-0"), volume("reference"), volume("prediction")
    original = np.asarray(nib.load(run.parent / "data" / "bad_label.nii.gz").dataobj)
    assert np.allclose(image.affine, AFFINE) and np.allclose(prediction.affine, AFFINE)
    # The cyst's label value is 4; it is the second structure.
    assert (np.asarray(reference.dataobj) == np.select([original == 1, original == 4], [1, 2])).all()
    assert (np.asarray(prediction.dataobj) == np.roll(np.asarray(reference.dataobj), 5, axis=1)).all()


def test_a_core_is_seen_in_its_tumour_in_whatever_order_they_are_listed():
    labels = np.array([0, 1, 2, 3])
    assert relabel(labels, [(2,), (1, 2), (3,)]).tolist() == [0, 2, 1, 3]
    assert relabel(labels, [(3,), (1, 2), (2,)]).tolist() == [0, 2, 3, 1]


def test_the_server_listens_on_loopback_only_and_tokens_differ(viewer: Viewer, run: Path):
    assert viewer.server_address[0] == "127.0.0.1"
    with Viewer(load_viewer_run(run)) as another:
        assert another.token != viewer.token and len(viewer.token) >= 32


@pytest.mark.parametrize("prefix", ["", "x" * 32, "%00", "é"])
def test_without_the_token_there_is_nothing(viewer: Viewer, prefix: str):
    for rest in ("", "cases.json", "case/0/image-0.nii", "viewer.js"):
        assert viewer.answer(f"/{prefix}/{rest}", f"127.0.0.1:{viewer.server_port}").status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "169.254.169.254:80"])
def test_a_name_that_was_rebound_to_this_machine_is_refused(viewer: Viewer, host: str):
    assert _get(viewer, f"/{viewer.token}/cases.json", host=host).status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "rest",
    [
        "../cases.json", "..%2f..%2fetc/passwd", "/etc/passwd", "assets/viewer/viewer.html", "case/0/../1/image-0.nii",
        "case/-1/prediction.nii", "case/99/prediction.nii", "case/0/image-7.nii", "case/0/image-.nii",
        "case/0/prediction.nii/", "case/٣/prediction.nii", "case/0/prediction.nii.gz", "niivue/../viewer.py",
    ],
)  # fmt: skip
def test_only_what_is_offered_can_be_asked_for(viewer: Viewer, rest: str):
    assert viewer.answer(f"/{viewer.token}/{rest}", f"127.0.0.1:{viewer.server_port}").status == HTTPStatus.NOT_FOUND


def test_answers_may_not_be_kept_framed_or_mixed_with_other_sites(viewer: Viewer):
    answer = _get(viewer, f"/{viewer.token}/")
    policy = answer.getheader("Content-Security-Policy", "")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert answer.getheader("Access-Control-Allow-Origin") is None
    assert _get(viewer, f"/{viewer.token}/", method="POST").status == HTTPStatus.NOT_IMPLEMENTED
    head = _get(viewer, f"/{viewer.token}/", method="HEAD")
    assert head.status == HTTPStatus.OK and head.read() == b""


def test_a_file_that_has_gone_is_named_and_the_viewer_goes_on(tmp_path: Path):
    fake_run(tmp_path, ids=("a", "b"))
    (tmp_path / "data" / "a.nii.gz").unlink()
    with Viewer(load_viewer_run(tmp_path / "run")) as server:
        at, host = {case.id: i for i, case in enumerate(server.run.order)}, f"localhost:{server.server_port}"
        gone = server.answer(f"/{server.token}/case/{at['a']}/image-0.nii", host)
        assert gone.status == HTTPStatus.UNPROCESSABLE_ENTITY and b"a.nii.gz: there is no such file" in gone.body
        assert server.answer(f"/{server.token}/case/{at['b']}/image-0.nii", host).status == HTTPStatus.OK


def test_what_is_no_run_and_a_port_in_use_are_refused_with_a_cure(tmp_path: Path, viewer: Viewer):
    with pytest.raises(ConfigError, match="no finished load stage; give the folder of a run"):
        load_viewer_run(tmp_path)
    with pytest.raises(ConfigError, match="leave --port out"):
        Viewer(viewer.run, viewer.server_port)


def test_the_licences_of_what_is_shipped_are_shipped(viewer: Viewer):
    text = _get(viewer, f"/{viewer.token}/licences.txt").read().decode()
    assert "BSD 2-Clause" in text and "Copyright (c) 2021, Niivue" in text and "fflate" in text


@pytest.mark.slow
def test_a_person_goes_through_the_cases(viewer: Viewer):
    """In a real browser: worst case first, next case, search, opacity, differences; nothing from outside, no error."""
    with chromium() as page:
        page.open(viewer.url)
        page.wait_for("document.body.dataset.shown === 'bad'")
        page.run("new Promise(done => setTimeout(done, 300))")
        both = page.screenshot()
        save(both, "viewer_light.png")
        assert page.run("document.getElementById('place').textContent").count("background") < 2
        assert page.run("document.querySelectorAll('#scores tbody tr').length") == 2

        _set(page, "prediction", "0")
        assert _painted(page) != _painted(page, both), "an invisible prediction changes the picture"
        _set(page, "prediction", "0.5")
        page.run("document.getElementById('differences').click()")
        page.run("new Promise(done => setTimeout(done, 200))")
        assert page.screenshot() != both

        page.run("document.getElementById('next').click()")
        page.wait_for(f"document.body.dataset.shown === {json.dumps(HOSTILE_ID)}")
        assert page.run("document.getElementById('case').textContent") == HOSTILE_ID
        assert page.run("document.querySelectorAll('img').length") == 0
        page.prefer("dark")
        _set(page, "colours", "structure")
        save(page.screenshot(), "viewer_dark.png")

        _set(page, "search", "goo")
        assert page.run("document.querySelectorAll('#cases button').length") == 1
        page.run("document.querySelector('#cases button').click()")
        page.wait_for("document.body.dataset.shown === 'good'")

        outside = [url for url in page.requests if not url.startswith((viewer.url, "data:", "blob:"))]
        assert outside == []
        assert [line for line in page.log if "Content Security Policy" in line or "Exception" in line] == []


def _set(page, element: str, value: str) -> None:
    page.run(
        f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')); }})"
        f"(document.getElementById({json.dumps(element)}))"
    )
    page.run("new Promise(done => setTimeout(done, 200))")


def _painted(page, picture: bytes | None = None) -> int:
    """How many pixels of a screenshot are coloured (the image itself is grey)."""
    import io

    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture or page.screenshot())).convert("RGB")).astype(int)[90:700, 300:]
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 25).sum())
