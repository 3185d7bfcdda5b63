"""Error responses: a status and a sentence for each way in which a request can fail."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from pipeline.deploy.server.predict_endpoint import Service
from pipeline.deploy.server.supervisor import Busy, WorkerLost
from pipeline.deploy.server.upload_rejected import UploadRejected

_CLIENT_LEFT = 499
"""Counted, never sent: nobody is there to read it."""


def add_error_responses(app: FastAPI, service: Service) -> None:
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
