"""What a live exchange holds of its client's bytes: nothing, once they are taken."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import AsyncExitStack

import pytest

from tests.support.server import frames as f
from tests.support.server.client import Client
from tests.support.server.servers import LocalServer, serve_while

STREAMS = 20
SMALL, LARGE = 100, 14_000  # both arrive in one read


@pytest.mark.parametrize("http", ["HTTP/1.1", "h2c"])
async def test_a_live_exchange_holds_nothing_of_its_body(http: str) -> None:
    """Twenty streams with long bodies take as much memory as twenty with short ones."""
    ask = _ask_http1 if http == "HTTP/1.1" else _ask_http2
    held: list[float] = []

    async def body(server: LocalServer) -> None:
        async with AsyncExitStack() as clients:
            tracemalloc.start()
            try:
                for size in (SMALL, SMALL, LARGE):  # the first makes what is made once
                    gc.collect()
                    before, _ = tracemalloc.get_traced_memory()
                    for _ in range(STREAMS):
                        client = await Client.connect(server.port)
                        await clients.enter_async_context(client)
                        await ask(client, size)
                    gc.collect()
                    after, _ = tracemalloc.get_traced_memory()
                    held.append((after - before) / STREAMS)
            finally:
                tracemalloc.stop()

    await serve_while(body, linger_s=0.1, drain_s=0.1)
    _, short, long = held
    assert long - short < 1_000


async def _ask_http1(client: Client, size: int) -> None:
    head = (
        b"POST /stream?n=2&every=60 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    )
    await client.say(head % size + b"x" * size)
    await client.read_until(lambda data: b"data: 0" in data)


async def _ask_http2(client: Client, size: int) -> None:
    path = b"/stream?n=2&every=60"
    head = f.request(1, path, method=b"POST", end=False)
    await client.say(f.hello() + head + f.frame(0x0, 0x1, 1, b"x" * size))
    await client.frames_until(lambda seen: b"data: 0" in f.body(seen, 1))
