"""`segpipe view`: go through a run's cases in the browser. For this user on this machine only, and offline.

The server listens on loopback. Every address begins with a random token, so that other users of the machine cannot
guess it; the browser is started with another one, which is good once, since all users see the command lines of
programs. Requests for another host name are refused, so that no web page can reach it by rebinding a name (DNS). What
is asked for is a number or one of a few words, never a path.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from pipeline.base.errors import ConfigError, DataError
from pipeline.viewer.run_data import ViewerRun, load_viewer_run
from pipeline.web.static_files import SAFE_HEADERS, VIEWER, asset

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_VOLUME = re.compile(r"case/(\d{1,6})/(?:image-(\d{1,3})|(reference)|(prediction))\.nii")


@dataclass(frozen=True)
class Answer:
    """What one request is answered with."""

    status: HTTPStatus
    kind: str
    body: bytes
    location: str | None = None
    """Where to go on."""


class Viewer(ThreadingHTTPServer):
    """Serves one run on loopback; `url` holds the token. Port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, run: ViewerRun, port: int = 0) -> None:
        self.run, self.token = run, secrets.token_urlsafe(24)
        self._tickets: set[str] = set()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror}; leave --port out for a free one"
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def url_for_once(self) -> str:
        """An address that leads to `url` the first time that it is asked for, and nowhere after that."""
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return f"http://{LOOPBACK}:{self.server_port}/{ticket}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went on to the next case, or left, is no fault."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def answer(self, path: str, host: str | None, method: str = "GET") -> Answer:
        """The answer to a request for `path` that names `host`."""
        if host not in self.hosts:
            return _refusal(HTTPStatus.FORBIDDEN, f"this viewer answers for {LOOPBACK} only")
        token, _, rest = path.partition("?")[0].removeprefix("/").partition("/")
        if method == "GET" and self._is_good_once(token):
            return Answer(HTTPStatus.SEE_OTHER, "text/plain; charset=utf-8", b"", self.url)
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return _refusal(HTTPStatus.NOT_FOUND, "unknown address; use the one that `segpipe view` printed")
        if rest in VIEWER:
            shipped = asset(VIEWER[rest])
            return Answer(HTTPStatus.OK, shipped.kind, shipped.body)
        if rest == "cases.json":
            return Answer(HTTPStatus.OK, "application/json", json.dumps(self.run.listing()).encode())
        if found := _VOLUME.fullmatch(rest):
            return self._volume(int(found[1]), found[2], found[3] is not None)
        return _refusal(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _is_good_once(self, ticket: str) -> bool:
        """Whether this is a ticket, which it is no more now: each request has a thread, and only one takes it out."""
        try:
            self._tickets.remove(ticket)
        except KeyError:
            return False
        return True

    def _volume(self, case: int, channel: str | None, reference: bool) -> Answer:
        try:
            if channel is not None:
                body: bytes | None = self.run.image(case, int(channel))
            else:
                body = self.run.reference(case) if reference else self.run.prediction(case)
        except IndexError:
            body = None
        except DataError as error:
            return _refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        if body is None:
            return _refusal(HTTPStatus.NOT_FOUND, "there is no such volume")
        return Answer(HTTPStatus.OK, "application/octet-stream", body)


class _Handler(BaseHTTPRequestHandler):
    server: Viewer
    server_version, sys_version = "segpipe", ""
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = 60

    def do_GET(self) -> None:
        self._send(self.server.answer(self.path, self.headers.get("Host")))

    def do_HEAD(self) -> None:
        self._send(self.server.answer(self.path, self.headers.get("Host"), "HEAD"), body=False)

    def _send(self, answer: Answer, body: bool = True) -> None:
        headers: Mapping[str, str] = {
            **SAFE_HEADERS, "Content-Type": answer.kind, "Content-Length": str(len(answer.body))
        }  # fmt: skip
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.location is not None:
            self.send_header("Location", answer.location)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: addresses hold the token."""


def view(run: Path, port: int = 0, open_browser: bool = True) -> None:
    """Serves the run folder until interrupted; prints the address and opens it in the browser.

    Raises ConfigError where `run` is no run with predictions, or the port is taken.
    """
    with Viewer(load_viewer_run(run), port) as viewer:
        print(f"{len(viewer.run.order)} cases at {viewer.url}\nstop with Ctrl-C", flush=True)
        if open_browser:
            import webbrowser

            # in a thread: one that runs in the terminal returns only when its reader is done with it
            threading.Thread(target=webbrowser.open, args=(viewer.url_for_once(),), daemon=True).start()
        try:
            viewer.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)


def _refusal(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", message.encode())
