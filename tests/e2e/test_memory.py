"""Clients that take nothing cost what is documented, and give it back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from tests.support.server import frames as f
from tests.support.server.client import Client, info
from tests.support.server.servers import start_process

CONNECTIONS, STREAMS = 10, 50
# A stream is a few objects and one shared message; Python's arenas do the rest.
BYTES_PER_STREAM = 64 * 1024


async def test_closed_windows_cost_one_message_each(tmp_path: Path) -> None:
    """500 streams that want megabytes and take nothing leave the process small."""
    start = partial(start_process, tmp_path, limits={"write_stall_s": 2, "drain_s": 1})
    server = await trio.to_thread.run_sync(start)
    try:
        with trio.fail_after(30):
            before = await info(server.port)
            numbers = range(1, 2 * STREAMS, 2)
            requests = b"".join(f.request(n, b"/flood") for n in numbers)
            async with trio.open_nursery() as nursery:
                for _ in range(CONNECTIONS):
                    nursery.start_soon(_hold, server.port, requests)
                await _until_live(server.port, CONNECTIONS * STREAMS)
                held = await info(server.port)
            assert held["produced_bytes"] == 0
            growth = held["rss_bytes"] - before["rss_bytes"]
            assert growth < CONNECTIONS * STREAMS * BYTES_PER_STREAM
            after = await info(server.port)
            assert after["stalled"] == CONNECTIONS * STREAMS
            assert after["exchanges_live"] == 1
    finally:
        server.kill()


async def _hold(port: int, requests: bytes) -> None:
    """Open the streams, give no credit, and stay until all have been reset."""
    async with await Client.connect(port) as client:
        await client.say(f.hello(INITIAL_WINDOW_SIZE=0) + requests)
        await client.frames_until(
            lambda seen: sum(one.kind == "reset" for one in seen) == STREAMS
        )


async def _until_live(port: int, count: int) -> None:
    live = 0
    while live <= count:  # the one that asks is live as well
        live = (await info(port))["exchanges_live"]
