"""What a request may take of the service's time and memory, before anything reads it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

BODY = 20 * 2**20
"""Bytes of a request, all its images together."""

SECONDS = 30.0
"""In which a request must have come whole."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def limited(app: Any, *, body: int = BODY, seconds: float = SECONDS) -> Any:
    """An ASGI app that refuses larger and slower requests, and those of other sites' pages.

    413 for more than `body` bytes, 408 for one that takes longer than `seconds` to come, 403 where
    a browser says that another site's page sent it.
    """

    async def limit(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if headers.get(b"sec-fetch-site") == b"cross-site":
            await _refuse(403, "a page of another site may not ask this service", scope, send)
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > body:
            await _refuse(413, _too_large(body), scope, send)
            return
        end, read = time.monotonic() + seconds, 0

        async def counted() -> _Message:
            nonlocal read
            if read < 0:  # the whole body is here; what comes is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0.001))
            except TimeoutError as error:
                reason = f"the request has not come within {seconds:g} s"
                raise HTTPException(408, reason, {"Connection": "close"}) from error
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > body:
                    raise HTTPException(413, _too_large(body), {"Connection": "close"})
                if not message.get("more_body"):
                    read = -1
            return message

        await app(scope, counted, send)

    return limit


def _too_large(body: int) -> str:
    return f"a request may have {body:,} bytes at most: send fewer or smaller images"


async def _refuse(status: int, reason: str, scope: MutableMapping[str, Any], send: _Send) -> None:
    async def nothing() -> _Message:
        return {"type": "http.disconnect"}

    close = {"Connection": "close"}
    await JSONResponse({"detail": reason}, status, headers=close)(scope, nothing, send)
