"""A headless Chromium that a test steers through the DevTools protocol over two pipes: no port, no driver program."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Chromium:
    """One page. `log` holds its console messages, exceptions and refused loads; `requests` every address asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._buffer, self._number = to_browser, from_browser, b"", 0
        self._session: str | None = None
        self.log: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str, width: int = 1280, height: int = 860) -> None:
        """Loads a page in a window of this size."""
        self.resize(width, height)
        self._call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Makes the system's colour scheme `light` or `dark`."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited; raises where it throws."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 120) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {condition}\n" + "\n".join(self.log))
            time.sleep(0.05)

    def screenshot(self, whole_page: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=whole_page)["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 60)
            piece = os.read(self._from, 2**20) if ready else b""
            if not piece:
                raise AssertionError("the browser does not answer")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, content = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.log.append(json.dumps(content["exceptionDetails"])[:600])
        elif method == "Log.entryAdded":
            self.log.append(f"{content['entry']['level']}: {content['entry']['text']}")
        elif method == "Runtime.consoleAPICalled" and content["type"] in {"error", "warning"}:
            self.log.append(" ".join(str(a.get("value", a.get("description", ""))) for a in content["args"]))


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A running browser with a profile of its own; the test is skipped where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: no chromium is installed (Debian: apt-get install chromium)")
    into_browser, to_browser = os.pipe()
    from_browser, out_of_browser = os.pipe()
    # The browser reads from descriptor 3 and writes to 4; these are moved out of the way first.
    inner = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (into_browser, out_of_browser)]

    def place_pipes() -> None:
        os.dup2(inner[0], 3)
        os.dup2(inner[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=place_pipes, close_fds=False, env={**os.environ, "HOME": profile}, start_new_session=True,
        )  # fmt: skip
        for fd in (into_browser, out_of_browser, *inner):
            os.close(fd)
        try:
            yield Chromium(to_browser, from_browser)
        finally:
            os.close(to_browser)
            os.close(from_browser)
            process.terminate()
            process.wait(timeout=20)


def save(picture: bytes, name: str) -> None:
    """Keeps a screenshot in the folder SEGPIPE_SCREENSHOTS, for a person to look at."""
    if folder := os.environ.get("SEGPIPE_SCREENSHOTS"):
        (Path(folder) / name).write_bytes(picture)
