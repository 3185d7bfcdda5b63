"""Health and readiness of the service, as an orchestrator asks for them."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from pipeline.deploy.server.supervisor import Supervisor


def health_router(supervisor: Supervisor) -> APIRouter:
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
