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

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from pipeline.deploy.server.error_responses import add_error_responses
from pipeline.deploy.server.health_probes import health_router
from pipeline.deploy.server.middleware import SafeResponseMiddleware
from pipeline.deploy.server.model_description import describe
from pipeline.deploy.server.predict_endpoint import Service, answer_upload
from pipeline.deploy.server.predict_response import Form
from pipeline.deploy.server.prometheus_metrics import ServiceMetrics
from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.deploy.server.supervisor import Supervisor
from pipeline.deploy.server.upload_page import upload_page_router
from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.packaging.model_package import ModelPackage


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
    app.include_router(upload_page_router())
    app.include_router(health_router(supervisor))
    app.include_router(_work(service))
    add_error_responses(app, service)
    return SafeResponseMiddleware(app, limits)


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
