"""A connection's memory is back at its end, without the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
import trio
import trio.testing

from tests.support.server import frames as f
from tests.support.server.client import Client, get
from tests.support.server.servers import LocalServer, serve_while

LONG = "/stream?n=2&every=60"
ENDINGS = ["whole", "leave", "reset", "bad", "refused", "boom"]


@pytest.mark.parametrize("http", ["HTTP/1.1", "h2c"])
async def test_connections_leave_nothing_for_the_collector(http: str) -> None:
    """Nothing of ours is in a cycle, however a hundred and fifty of them end."""
    visit = _visit_http1 if http == "HTTP/1.1" else _visit_http2

    async def body(server: LocalServer) -> None:
        random = Random(http)
        await _visits(visit, server, [random.choice(ENDINGS) for _ in range(30)])
        with _collected() as garbage:
            await _visits(visit, server, [random.choice(ENDINGS) for _ in range(150)])
        ours = Counter(
            type(found).__qualname__
            for found in garbage
            if type(found).__module__.startswith("trio_ai_stream.server")
        )
        assert not ours

    await serve_while(body, within_s=60, body_read_s=2, linger_s=0.1)


@contextmanager
def _collected() -> Iterator[list[object]]:
    """Yield a list; afterwards it holds what only the collector could free."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def _visits(visit: object, server: LocalServer, endings: list[str]) -> None:
    limiter = trio.CapacityLimiter(20)

    async def one(ending: str) -> None:
        async with limiter, await Client.connect(server.port) as client:
            await visit(client, ending)  # type: ignore[operator]

    async with trio.open_nursery() as nursery:
        for ending in endings:
            nursery.start_soon(one, ending)
    while server.hardened.tally.connections_open:
        await trio.testing.wait_all_tasks_blocked(0.01)


async def _visit_http1(client: Client, ending: str) -> None:
    if ending == "bad":
        await client.say(b"\0\r\n\r\n")
        await client.read_to_end()
    elif ending == "refused":  # before the body that it announces
        await client.say(
            b"POST /unread HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n"
        )
        await client.read_to_end()
    elif ending == "boom":
        await client.say(get("/boom-midway"))
        await client.read_to_end()
    elif ending == "whole":
        await client.say(get("/stream?n=3&every=0") + get("/ok", "Connection: close"))
        await client.read_to_end()
    else:
        await client.say(get(LONG))
        await client.read_until(lambda data: b"data: 0" in data)
        if ending == "reset":
            client.reset()


async def _visit_http2(client: Client, ending: str) -> None:
    if ending == "bad":
        await client.say(f.hello() + f.frame(0x0, 0, 0, b"DATA on stream 0"))
        await client.read_to_end()
        return
    head = {
        "refused": f.request(1, b"/unread", method=b"POST", end=False),
        "boom": f.request(1, b"/boom-midway"),
        "whole": f.request(1, b"/stream?n=3&every=0"),
    }.get(ending, f.request(1, LONG.encode()))
    await client.say(f.hello() + head + f.request(3, b"/ok"))
    if ending in {"leave", "reset"}:
        await client.frames_until(lambda seen: b"data: 0" in f.body(seen, 1))
        if ending == "reset":
            client.reset()
    else:
        await client.frames_until(lambda seen: f.ended(seen, 1) and f.ended(seen, 3))
