"""What the server mends, shown on Hypercorn as it is.

Each test here passes because of a defect. One that fails says that Hypercorn no longer
has it: then the server may shrink by the mend that docs/server.md names for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.support.server import frames as f
from tests.support.server.client import Client
from tests.support.server.servers import (
    LocalServer,
    serve_stock_while,
)
from trio_ai_stream.server.serving import leaves

Body = Callable[[LocalServer], Awaitable[None]]

FATAL: dict[str, tuple[bytes, type[BaseException]]] = {
    "late DATA": (
        f.hello()
        + f.request(1, b"/unread", method=b"POST", end=False)
        + f.data(1, b"x") * 1,
        KeyError,
    ),
    "a :path with a high byte": (
        f.hello() + f.request(1, b"/caf\xc3\xa9"),
        UnicodeDecodeError,
    ),
    "CONNECT without a path": (
        f.hello() + f.headers(1, ((b":method", b"CONNECT"), (b":authority", b"a"))),
        UnboundLocalError,
    ),
    "PRIORITY for idle streams": (
        f.hello()
        + b"".join(f.frame(2, 0, n, bytes(4) + b"\1") for n in range(3, 2400, 2)),
        Exception,
    ),
}


async def _what_ended_it(body: Body) -> list[BaseException]:
    """Return what was raised out of a stock worker, [] if it outlived `body`."""
    try:
        with trio.move_on_after(5):
            await serve_stock_while(body)
    except BaseExceptionGroup as group:
        return leaves(group)
    return []


@pytest.mark.parametrize("name", FATAL)
async def test_one_client_ends_a_stock_worker(name: str) -> None:
    """These bytes raise in a connection's task and so end the whole worker."""
    data, expected = FATAL[name]

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(data)
            if name == "late DATA":
                await client.frames_until(lambda seen: f.ended(seen, 1))
                await client.say(f.data(1, b"x"))
            await trio.sleep_forever()

    assert any(isinstance(exc, expected) for exc in await _what_ended_it(body))


async def test_a_malformed_chunk_ends_a_stock_worker() -> None:
    """The reader's error response collides with the close after the application's.

    It takes the right moment, so the bad chunk follows the head after more and more
    turns of the scheduler.
    """
    post = b"POST /ok HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def body(server: LocalServer) -> None:
        for attempt in range(400):
            try:
                client = await Client.connect(server.port)
            except OSError:
                return  # the worker is going down
            async with client:
                await client.say(post)
                for _ in range(attempt % 20):
                    await trio.lowlevel.checkpoint()
                await client.say(b"zz\r\n")
                await client.read_to_end()

    ended_by = await _what_ended_it(body)
    assert any(isinstance(exc, trio.BusyResourceError) for exc in ended_by)
