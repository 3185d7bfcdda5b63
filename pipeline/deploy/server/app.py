"""The model as a service: POST a scan to /predict, get its segmentation; / is a page that does so.

FastAPI on uvicorn in front, one worker process with the model behind (`supervisor.py`). The service keeps
no scan: uploads live in a temporary folder until they are segmented, answers until they are read. Logs, metrics and
URLs hold counts and times only, never a file's name or anything of its header.
"""

from __future__ import annotations

import hmac
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.base.errors import EXIT_DONE, missing_extra

try:
    import uvicorn
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from starlette.requests import ClientDisconnect
    from starlette.types import ASGIApp

    from pipeline.deploy.server.middleware import SafeResponseMiddleware
    from pipeline.deploy.server.predict_endpoint import Form, Service, answer_upload
    from pipeline.deploy.server.prometheus_metrics import ServiceMetrics
except ImportError as error:
    raise missing_extra(str(error.name), "serve", "segpipe serve") from None

from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.deploy.server.server_settings import ServiceLimits, read_limits
from pipeline.deploy.server.supervisor import Busy, Supervisor, WorkerLost
from pipeline.deploy.server.uploads import UploadRejected
from pipeline.packaging.model_package import ModelPackage, load_package
from pipeline.web.browser_volumes import planned_windows
from pipeline.web.static_files import DROP, asset

log = logging.getLogger(__name__)

_CLIENT_LEFT = 499
"""Counted, never sent: nobody is there to read it."""


def serve(package: Path, host: str = "127.0.0.1", port: int = 8000, device: str = "auto") -> int:
    """Serves the model until SIGTERM or Ctrl-C, then finishes the running case and returns the exit code.

    Raises DataError for a package that is not whole, ConfigError for a limit that is no number.
    """
    silence_dicom_logging()
    limits = read_limits(os.environ)
    model = load_package(package)
    supervisor = Supervisor(model.folder, device, limits.queue, limits.timeout_s)
    app = make_app(model, supervisor, limits)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=int(limits.timeout_s),
    )  # fmt: skip
    log.info("serving %s %s on http://%s:%d", model.name, model.version, host, port)
    server = _Server(config, supervisor)
    supervisor.on_startup_failure = server.give_up
    server.run()
    return server.exit_code


class _Server(uvicorn.Server):
    """Tells the supervisor at once that the end has begun, so that waiting cases are sent away."""

    def __init__(self, config: uvicorn.Config, supervisor: Supervisor) -> None:
        super().__init__(config)
        self.supervisor, self.exit_code = supervisor, EXIT_DONE

    def give_up(self, code: int) -> None:
        """Ends the service with a worker's exit code: what keeps the model from working is no passing trouble."""
        log.error("no worker can work with this model here, so the service ends; what it said stands above")
        self.exit_code, self.should_exit = code, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.supervisor.draining = True
        log.info("%s: finishing the running case", signal.Signals(sig).name)
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # a clean end: the signal is not raised again


def make_app(model: ModelPackage, supervisor: Supervisor, limits: ServiceLimits) -> ASGIApp:
    """The application: routes around one supervisor."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await supervisor.start()
        yield
        await supervisor.stop()

    service = Service(model, supervisor, limits, ServiceMetrics(supervisor))
    app = FastAPI(
        title=model.name, version=model.version, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.include_router(_page())
    app.include_router(_probes(supervisor))
    app.include_router(_work(service))
    _answer_errors(app, service)
    return SafeResponseMiddleware(app, limits)


def _page() -> APIRouter:
    """The page to drop a scan on. It holds nothing of the model: it asks for that, with the token where one is due."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _shipped(request, "")

    @router.get("/page/{name}")
    async def part(request: Request, name: str) -> Response:
        if not name or name not in DROP:
            raise HTTPException(404, "there is nothing here")
        return _shipped(request, name)

    return router


def _shipped(request: Request, name: str) -> Response:
    file = asset(DROP[name])
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.kind)


def _probes(supervisor: Supervisor) -> APIRouter:
    """What an orchestrator asks, without a token."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/ready")
    async def ready() -> Response:
        able = supervisor.ready and not supervisor.draining
        each = supervisor.seconds_per_case
        about = {"ready": able, "cases": supervisor.admitted, "seconds_per_case": each and round(each, 1)}
        return JSONResponse(about, 200 if able else 503)

    return router


def _work(service: Service) -> APIRouter:
    """What needs the token, where one is set."""

    def authorised(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        wanted = service.limits.token
        if wanted is None:
            return
        # Headers are decoded as latin-1; a token is UTF-8.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), wanted.encode()):
            raise UploadRejected(401, "this service needs a token: Authorization: Bearer TOKEN")

    router = APIRouter(dependencies=[Depends(authorised)])

    @router.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.meters.text(), media_type="text/plain; version=0.0.4")

    @router.get("/model")
    async def model() -> dict[str, Any]:
        return describe(service.model, service.limits)

    @router.post("/predict")
    async def predict(request: Request, strict: bool = False, answer: Form = "segmentation") -> Response:
        return await answer_upload(request, service, strict, answer)

    return router


def _answer_errors(app: FastAPI, service: Service) -> None:
    """A status and a sentence for each way in which a request can fail."""

    def refusal(request: Request, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
        if request.url.path == "/predict":
            service.meters.count(status)
        return JSONResponse({"detail": sentence}, status, headers)

    @app.exception_handler(UploadRejected)
    async def _refused(request: Request, refused: UploadRejected) -> Response:
        headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
        return refusal(request, refused.status, str(refused), headers)

    @app.exception_handler(RequestValidationError)
    async def _unknown_value(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(request, 422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(Busy)
    async def _busy(request: Request, busy: Busy) -> Response:
        status = 503 if service.supervisor.draining else 429
        return refusal(request, status, str(busy), {"Retry-After": str(busy.retry_after_s)})

    @app.exception_handler(WorkerLost)
    async def _lost(request: Request, lost: WorkerLost) -> Response:
        return refusal(request, 503, str(lost), {"Retry-After": "10"})

    @app.exception_handler(ClientDisconnect)
    async def _left(_: Request, __: ClientDisconnect) -> Response:
        service.meters.count(_CLIENT_LEFT)
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def _our_fault(request: Request, _: Exception) -> Response:
        return refusal(request, 500, "a fault of the service, which its log describes; the scan is not kept")


def describe(model: ModelPackage, limits: ServiceLimits) -> dict[str, Any]:
    """What `/model` says: card, labels, figures, what scans must have and how large they may be."""
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "channels": list(model.channels),
        "windows": planned_windows(model.plan.channels),
        "labels": [label.model_dump(mode="json") for label in model.labels],
        "metrics": model.metrics,
        "card": model.card,
        "upload_mib": limits.upload_mib,
    }
