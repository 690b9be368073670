"""What a request may take of the service's time and memory, before anything reads it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

BODY = 20 * 2**20
"""Bytes of a request, all its images together."""

SECONDS = 30.0
"""In which a request must have come whole."""

HEAD = 10.0
"""In which a connection must have sent the head of a request."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class TimedHead(H11Protocol):
    """uvicorn's protocol, which closes a connection whose request's head does not come in time.

    By itself uvicorn waits for ever where nothing comes, or half a head does; some hundreds of such
    connections are all that it takes.
    """

    seconds = HEAD
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection has ended."""
        super().connection_lost(exc)
        if self._end:
            self._end.cancel()

    def _watch(self) -> None:
        """Time runs from the first byte that is awaited until the head is whole."""
        if self.conn.their_state is not h11.IDLE:
            if self._end:
                self._end.cancel()
            self._end = None
        elif self._end is None:
            self._end = self.loop.call_later(self.seconds, self.timeout_keep_alive_handler)


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
