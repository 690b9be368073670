"""Connections that stall before there is a request: closed in time, and no others with them."""

import asyncio
import time

import pytest

pytest.importorskip("uvicorn", reason="requirements-serve.txt is not installed")

from uvicorn import Config
from uvicorn.server import ServerState

from deploy.limits import TimedHead

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS = 0.5


async def slow_app(scope, receive, send):
    """Answers after a second, which is longer than a head may take."""
    await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


async def answer(port, *parts, wait=0.0):
    """What comes until the connection is closed, and after how many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.monotonic()
    said = asyncio.create_task(reader.read())
    for part in parts:
        writer.write(part)
        await asyncio.sleep(wait)
    try:
        return await asyncio.wait_for(said, 10), time.monotonic() - start
    except ConnectionError:  # closed while more was sent
        return b"", time.monotonic() - start
    finally:
        writer.close()


async def served(*clients):
    config = Config(slow_app, http=TimedHead, lifespan="off", log_level="critical")
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TimedHead(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        answers = await asyncio.gather(*(answer(port, *parts, **how) for parts, how in clients))
    return answers, state.connections


def test_a_head_that_does_not_come_is_waited_for_no_longer(monkeypatch):
    monkeypatch.setattr(TimedHead, "seconds", SECONDS)
    close = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers, left = asyncio.run(
        served(
            ((), {}),
            ((HEAD[:9],), {}),
            (tuple(HEAD[i : i + 1] for i in range(20)), {"wait": SECONDS / 10}),  # drop by drop
            ((close[:20], close[20:]), {"wait": SECONDS / 5}),  # slow, but in time
            ((HEAD + HEAD[:9], HEAD[9:12]), {"wait": 3 * SECONDS}),  # the second one stalls
        )
    )
    silent, half, drops, slow, second = answers
    for said, seconds in (silent, half, drops):
        assert said == b"" and seconds > SECONDS * 0.9
    assert slow[0].count(b"200 OK") == 1 and b"here" in slow[0]
    assert second[0].count(b"200 OK") == 1  # and closed: `answer` waits for that
    assert not left
