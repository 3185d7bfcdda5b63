"""A request's body onto the disk as it comes, bounded; and work for a client as long as it is there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from starlette.formparsers import MultiPartException
from starlette.types import Message

from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.deploy.server.upload_rejected import UploadRejected

_BLOCK = 2**20
T = TypeVar("T")


async def receive(request: Request, target: Path, limits: ServiceLimits) -> None:
    """Writes the request's body, or the one file of its form, to `target` as it comes.

    Raises Refused: 413 beyond the limit (at once where the length is announced), 408 where it takes too long, 400 for a
    form without a file. Raises ClientDisconnect where the client leaves.
    """
    if int(request.headers.get("content-length") or 0) > limits.upload_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.upload_s):
            if request.headers.get("content-type", "").startswith("multipart/form-data"):
                await _receive_form(request, target, limits)
            else:
                await _receive_body(request, target, limits)
    except TimeoutError:
        raise UploadRejected(408, f"the upload took over {limits.upload_s:g} s") from None


async def _receive_body(request: Request, target: Path, limits: ServiceLimits) -> None:
    written = 0
    with target.open("wb") as out:
        async for block in request.stream():
            written += len(block)
            if written > limits.upload_bytes:
                raise _too_large(limits)
            out.write(block)


async def _receive_form(request: Request, target: Path, limits: ServiceLimits) -> None:
    raw_receive, seen = request.receive, 0

    async def bounded() -> Message:
        nonlocal seen
        message = await raw_receive()
        seen += len(message.get("body", b""))
        if seen > limits.upload_bytes:
            raise _too_large(limits)
        return message

    try:
        async with Request(request.scope, bounded).form(max_files=1, max_fields=8) as form:
            files = [value for value in form.values() if not isinstance(value, str)]
            if not files:
                raise UploadRejected(400, "the form has no file; send one, for instance curl -F file=@scan.nii.gz")
            with target.open("wb") as out:
                while block := await files[0].read(_BLOCK):
                    out.write(block)
    except MultiPartException as fault:
        raise UploadRejected(400, f"the form cannot be read: {fault.message}") from None


def _too_large(limits: ServiceLimits) -> UploadRejected:
    return UploadRejected(413, f"the upload is too large: at most {limits.upload_mib} MiB are taken")
