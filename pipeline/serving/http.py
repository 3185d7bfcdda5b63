"""The model as a service: POST a scan to /predict, get its segmentation.

FastAPI on uvicorn in front, one worker process with the model behind (`pipeline.serving.supervisor`). The service keeps
no scan: uploads live in a temporary folder for as long as their request. Logs, metrics and URLs hold counts and times
only, never a file's name or anything of its header.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pipeline.base.errors import EXIT_DONE, ConfigError, DataError, missing_extra
from pipeline.data.formats import read_label
from pipeline.serving.model import ModelPackage, load_package
from pipeline.serving.supervisor import Busy, Supervisor, WorkerLost
from pipeline.serving.uploads import Refused, accept

try:
    import uvicorn
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
    from starlette.background import BackgroundTask
    from starlette.formparsers import MultiPartException
except ImportError as error:
    raise missing_extra(str(error.name), "serve", "segpipe serve") from None

log = logging.getLogger(__name__)

Answer = Literal["segmentation", "json", "dicom-seg"]


@dataclass(frozen=True)
class Limits:
    """What the service takes on. Each comes from an environment variable (in brackets)."""

    queue: int = 8
    """Cases that may wait beside the one that runs; the next is told 429. [SEGPIPE_QUEUE]"""
    upload_mib: int = 512
    """Largest request. [SEGPIPE_MAX_UPLOAD_MIB]"""
    unpacked_mib: int = 4096
    """Largest scan once unpacked. [SEGPIPE_MAX_UNPACKED_MIB]"""
    timeout_s: float = 600.0
    """Longest time for one case, waiting left aside. [SEGPIPE_TIMEOUT_S]"""
    upload_s: float = 120.0
    """Longest time for an upload. [SEGPIPE_UPLOAD_S]"""
    token: str | None = None
    """Where set, requests need `Authorization: Bearer TOKEN`. [SEGPIPE_TOKEN]"""


def limits_from(environment: dict[str, str]) -> Limits:
    """The limits that the environment asks for; a ConfigError names the variable that is no positive number."""

    def number(name: str, default: float) -> float:
        try:
            value = float(environment.get(name) or default)
        except ValueError:
            value = -1.0
        if value < 0 or (value == 0 and name != "SEGPIPE_QUEUE"):
            raise ConfigError(f"{name}={environment[name]!r} must be a positive number, for instance {default:g}")
        return value

    standard = Limits()
    return Limits(
        queue=int(number("SEGPIPE_QUEUE", standard.queue)),
        upload_mib=int(number("SEGPIPE_MAX_UPLOAD_MIB", standard.upload_mib)),
        unpacked_mib=int(number("SEGPIPE_MAX_UNPACKED_MIB", standard.unpacked_mib)),
        timeout_s=number("SEGPIPE_TIMEOUT_S", standard.timeout_s),
        upload_s=number("SEGPIPE_UPLOAD_S", standard.upload_s),
        token=environment.get("SEGPIPE_TOKEN") or None,
    )


def serve(package: Path, host: str = "127.0.0.1", port: int = 8000, device: str = "auto") -> int:
    """Serves the model until SIGTERM or Ctrl-C, then finishes the running case and returns the exit code.

    Raises DataError for a package that is not whole, ConfigError for a limit that is no number.
    """
    limits = limits_from(dict(os.environ))
    model = load_package(package)
    supervisor = Supervisor(model.folder, device, limits.queue, limits.timeout_s)
    app = make_app(model, supervisor, limits)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=int(limits.timeout_s),
    )  # fmt: skip
    log.info("serving %s %s on http://%s:%d", model.name, model.version, host, port)
    _Server(config, supervisor).run()
    return EXIT_DONE


class _Server(uvicorn.Server):
    """Tells the supervisor at once that the end has begun, so that waiting cases are sent away."""

    def __init__(self, config: uvicorn.Config, supervisor: Supervisor) -> None:
        super().__init__(config)
        self.supervisor = supervisor

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.supervisor.draining = True
        log.info("%s: finishing the running case", signal.Signals(sig).name)
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # a clean end: the signal is not raised again


def make_app(model: ModelPackage, supervisor: Supervisor, limits: Limits) -> FastAPI:
    """The application: routes around one supervisor."""
    from pipeline.serving.meters import Meters

    meters = Meters(supervisor)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await supervisor.start()
        yield
        await supervisor.stop()

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if limits.token is not None and not hmac.compare_digest(given.encode(), limits.token.encode()):
            raise Refused(401, "this service needs a token: Authorization: Bearer TOKEN")

    app = FastAPI(title=model.name, version=model.version, lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.exception_handler(Refused)
    async def _refused(_: Request, refusal: Refused) -> Response:
        meters.count(refusal.status)
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
        return JSONResponse({"detail": str(refusal)}, refusal.status, headers)

    @app.exception_handler(Busy)
    async def _busy(_: Request, busy: Busy) -> Response:
        status = 503 if supervisor.draining else 429
        meters.count(status)
        return JSONResponse({"detail": str(busy)}, status, {"Retry-After": str(busy.retry_after_s)})

    @app.exception_handler(WorkerLost)
    async def _lost(_: Request, lost: WorkerLost) -> Response:
        meters.count(503)
        return JSONResponse({"detail": str(lost)}, 503, {"Retry-After": "10"})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> Response:
        able = supervisor.ready and not supervisor.draining
        return JSONResponse({"ready": able}, 200 if able else 503)

    @app.get("/metrics", dependencies=[Depends(authorised)])
    async def metrics() -> Response:
        return PlainTextResponse(meters.text(), media_type="text/plain; version=0.0.4")

    @app.get("/model", dependencies=[Depends(authorised)])
    async def about() -> dict[str, Any]:
        return describe(model)

    @app.post("/predict", dependencies=[Depends(authorised)])
    async def predict(request: Request, strict: bool = False, answer: Answer = "segmentation") -> Response:
        async with supervisor.place():
            folder = tempfile.TemporaryDirectory(prefix="segpipe-request-")
            try:
                response = await _predict(request, Path(folder.name), strict, answer)
            except BaseException:
                folder.cleanup()
                raise
        response.background = BackgroundTask(folder.cleanup)
        meters.count(200)
        return response

    async def _predict(request: Request, folder: Path, strict: bool, answer: Answer) -> Response:
        received = folder / "received"
        await receive(request, received, limits)
        names = tuple(channel.name for channel in model.plan.channels)
        upload = await asyncio.to_thread(accept, received, folder, names, limits.unpacked_mib * 2**20)
        output = folder / f"segmentation{upload.ending}"
        with meters.case():
            result = await supervisor.segment(upload.images, output, strict)
        message = str(result["message"]).replace(f"{folder}/", "")
        if result["status"] != "done":
            raise Refused(422, message)
        about = {"volumes_ml": result["volumes_ml"], "warning": message, "model": f"{model.name} {model.version}"}
        if answer == "json":
            return JSONResponse(about)
        if answer == "dicom-seg":
            output = await asyncio.to_thread(_as_dicom_seg, output, upload.images[0], model)
        return FileResponse(output, filename=output.name, headers={"X-Segpipe-Result": json.dumps(about)})

    return app


def _as_dicom_seg(segmentation: Path, series: Path, model: ModelPackage) -> Path:
    """The segmentation of an uploaded DICOM series as DICOM-SEG; Refused (422) where it cannot be one."""
    from pipeline.serving.dicom import write_dicom_seg

    if not series.is_dir():
        raise Refused(422, "answer=dicom-seg needs a zip of a DICOM series, which it refers to")
    target = segmentation.with_name("segmentation.dcm")
    try:
        write_dicom_seg(target, read_label(segmentation), series, model.labels, f"{model.name} {model.version}")
    except DataError as error:
        raise Refused(422, str(error).replace(f"{segmentation.parent}/", "")) from None
    return target


def describe(model: ModelPackage) -> dict[str, Any]:
    """What `/model` says: card, labels, figures and what scans must have."""
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "channels": [channel.name for channel in model.plan.channels],
        "labels": [label.model_dump(mode="json") for label in model.labels],
        "metrics": model.metrics,
        "card": model.card,
    }


async def receive(request: Request, target: Path, limits: Limits) -> None:
    """Writes the request's body, or the one file of its form, to `target` as it comes.

    Raises Refused: 413 beyond the limit (at once where the length is announced), 408 where it takes too long, 400 for a
    form without a file.
    """
    most = limits.upload_mib * 2**20
    if int(request.headers.get("content-length") or 0) > most:
        raise Refused(413, f"at most {limits.upload_mib} MiB are taken")
    try:
        async with asyncio.timeout(limits.upload_s):
            if request.headers.get("content-type", "").startswith("multipart/form-data"):
                await _receive_form(request, target, most)
            else:
                await _receive_body(request, target, most)
    except TimeoutError:
        raise Refused(408, f"the upload took over {limits.upload_s:g} s") from None


async def _receive_body(request: Request, target: Path, most: int) -> None:
    written = 0
    with target.open("wb") as out:
        async for block in request.stream():
            written += len(block)
            if written > most:
                raise Refused(413, f"at most {most:,} bytes are taken")
            out.write(block)


async def _receive_form(request: Request, target: Path, most: int) -> None:
    raw_receive, seen = request.receive, 0

    async def bounded() -> Any:
        nonlocal seen
        message = await raw_receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise Refused(413, f"at most {most:,} bytes are taken")
        return message

    try:
        form = await Request(request.scope, bounded).form(max_files=1, max_fields=8)
    except MultiPartException as fault:
        raise Refused(400, f"the form cannot be read: {fault.message}") from None
    files = [value for value in form.values() if not isinstance(value, str)]
    if not files:
        raise Refused(400, "the form has no file; send one, for instance curl -F file=@scan.nii.gz")
    with target.open("wb") as out:
        while block := await files[0].read(2**20):
            out.write(block)
    await form.close()
