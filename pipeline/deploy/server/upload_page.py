"""Page of the service on which a scan is dropped: its static files, with the browser's copies kept current."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from pipeline.web.static_files import DROP, asset


def upload_page_router() -> APIRouter:
    """The page to drop a scan on. It holds nothing of the model: it asks for that, with the token where one is due."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _send_static_file(request, "")

    @router.get("/page/{name}")
    async def part(request: Request, name: str) -> Response:
        if not name or name not in DROP:
            raise HTTPException(404, "there is nothing here")
        return _send_static_file(request, name)

    return router


def _send_static_file(request: Request, name: str) -> Response:
    file = asset(DROP[name])
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.kind)
