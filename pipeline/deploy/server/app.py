"""The application: routes of the service.

FastAPI on uvicorn in front, one worker process with the model behind (`supervisor.py`). The service keeps
no scan: uploads live in a temporary folder until they are segmented, answers until they are read. Logs, metrics and
URLs hold counts and times only, never a file's name or anything of its header.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from pipeline.deploy.server.error_responses import add_error_responses
from pipeline.deploy.server.middleware import SafeResponseMiddleware
from pipeline.deploy.server.model_description import describe
from pipeline.deploy.server.predict_endpoint import Service, answer_upload
from pipeline.deploy.server.predict_response import Form
from pipeline.deploy.server.prometheus_metrics import ServiceMetrics
from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.deploy.server.supervisor import Supervisor
from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.packaging.model_package import ModelPackage
from pipeline.web.static_files import DROP, asset


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
    add_error_responses(app, service)
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
