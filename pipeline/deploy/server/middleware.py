"""What every answer of the service has: headers that keep a browser from harm, and patience with who still sends.

A connection that is closed with unread bytes is reset, and many clients then lose the answer. So after an early answer
(a full queue, too large a scan, a missing token) the rest of the body is read and dropped, for no longer and no more
than an upload may take. A client that asked first (Expect: 100-continue) sends no body once it is refused.

A fault of ours is logged here and goes no further: the server would log it with its message, which may quote a header.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.base.log_privacy import traceback_without_message
from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.web.static_files import SAFE_HEADERS

log = logging.getLogger(__name__)


class SafeResponseMiddleware:
    """ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp, limits: ServiceLimits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, waits="100-continue" in Headers(scope=scope).get("expect", "").lower())

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            elif not message.get("more_body", False) and not body.ended:
                await send({**message, "more_body": True})
                await body.drop_rest(self.limits)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self.app(scope, body.receive, answer)
        except Exception as error:  # already answered with 500
            log.error("a fault of the service:\n%s", traceback_without_message(error))


@dataclass
class _Body:
    """A request's body on its way. waits: the client sends it only once it is asked for."""

    source: Receive
    waits: bool
    over: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes: a further message would be waited for until the client leaves."""
        return self.over or self.waits

    async def receive(self) -> Message:
        self.waits = False
        message = await self.source()
        self.over = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drop_rest(self, limits: ServiceLimits) -> None:
        """Reads what the client still sends and forgets it, within the limits of size and time."""
        left = limits.upload_bytes
        try:
            async with asyncio.timeout(limits.upload_s):
                while left > 0 and not self.over:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
