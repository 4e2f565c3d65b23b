"""What Hypercorn as it is answers wrongly, cuts, or waits for in vain.

As in test_stock_defects.py a test here passes because of a defect.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h11
import pytest
import trio

from tests.support.server import frames as f
from tests.support.server.application import BLOCK
from tests.support.server.client import Client, events_of, get, status_of
from tests.support.server.servers import (
    LocalServer,
    local_config,
    serve_stock_while,
    start_process,
)


async def test_a_malformed_head_ends_the_connection() -> None:
    """One request without a path costs the well-formed stream next to it its rest."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/stream?n=9&every=1"))
            await client.frames_until(lambda seen: bool(f.body(seen, 1)))
            await client.say(f.headers(3, ((b":method", b"GET"), (b":scheme", b"x"))))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert [one.kind for one in seen][-1] == "goaway"
            assert events_of(f.body(seen, 1)) == [b"0"]

    await serve_stock_while(body)


async def test_a_response_whose_head_met_a_cancel_ends_a_stock_worker() -> None:
    """The state stays at "no head yet", so that the end makes h11 raise."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/cut-head"))
            await trio.sleep_forever()

    ends = pytest.RaisesGroup(h11.LocalProtocolError, flatten_subgroups=True)
    with ends:
        await serve_stock_while(body)


async def test_a_response_whose_head_met_a_cancel_is_empty_over_http2() -> None:
    """It ends without a status and without its body."""

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(f.hello() + f.request(1, b"/cut-head"))
            seen = await client.frames_until(lambda seen: f.ended(seen, 1))
            assert (f.status(seen, 1), f.body(seen, 1)) == (0, b"")

    await serve_stock_while(body)


async def test_a_head_beyond_the_bound_is_taken_if_it_comes_whole() -> None:
    """h11 looks at the size of what it waits for, not of what it has."""
    config = local_config()
    config.h11_max_incomplete_size = 1000
    large = get("/ok", "X: " + "a" * 30_000)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(large)
            answer = await client.read_until(lambda data: data.endswith(b"/ok"))
            assert status_of(answer) == 200
        async with await Client.connect(server.port) as client:
            await client.say(large[:-1])
            assert status_of(await client.read_to_end()) == 431

    await serve_stock_while(body, config=config)


async def test_the_sender_of_a_body_for_head_never_pauses() -> None:
    """What is not written takes no checkpoint: no other task runs until the end."""
    most = 300 * len(BLOCK)
    seen = set()

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            head = get(f"/flood?most={most}").replace(b"GET", b"HEAD")
            await client.say(head)
            while server.application.produced_bytes < most:
                seen.add(server.application.produced_bytes)
                await trio.lowlevel.checkpoint()

    await serve_stock_while(body)
    assert seen == {0}


async def test_graceful_timeout_is_waited_out() -> None:
    """The one stream ends at once, but its connection stays for the whole time."""
    config = local_config()
    config.graceful_timeout = 1

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            await client.say(get("/stream?n=2&every=0.1"))
            await client.read_until(lambda data: b"data: 0" in data)
            server.stop.set()
            await client.read_to_end_of_stream()
            with trio.move_on_after(0.6):
                await client.read_to_end()
            assert not client.ended

    await serve_stock_while(body, config=config)


async def test_a_worker_is_cut_when_another_has_ended(tmp_path: Path) -> None:
    """The idle one of two workers ends first, and the stream on the other with it."""
    start = partial(
        start_process,
        tmp_path,
        limits=None,
        workers=2,
        arguments=("--graceful-timeout", "30"),
    )
    server = await trio.to_thread.run_sync(start)
    answer = b""
    try:
        with trio.move_on_after(30) as patience:
            async with await Client.connect(server.port) as client:
                await client.say(get("/stream?n=2&every=60"))
                await client.read_until(lambda data: b"data: 0" in data)
                server.process.terminate()
                answer = await client.read_to_end()
        left = server.living, server.log.read_text()
        assert not patience.cancelled_caught, left
    finally:
        server.kill()
    assert events_of(answer) == [b"0"]
    assert not answer.endswith(b"0\r\n\r\n")
