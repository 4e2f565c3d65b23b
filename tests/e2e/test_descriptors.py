"""A process that runs out of descriptors says so at start, and still answers probes."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import trio

from tests.support.process import SERVE, server
from tests.support.server.client import Client, get, status_of

LIMITED = (
    "import os, resource, sys;"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2);"
    "os.execv(sys.executable, sys.argv[2:])"
)


def _limited(limit: int) -> list[str]:
    return [sys.executable, "-c", LIMITED, str(limit), *SERVE]


async def test_probes_are_answered_when_descriptors_have_run_out() -> None:
    """Clients that say nothing hold all of them; /health is 200, the rest 503."""
    waiting = {"READ_TIMEOUT_SECS": "60", "MAX_CONNECTIONS": "1000"}
    waiting["ALLOW_ANONYMOUS"] = "1"
    with trio.fail_after(60), ExitStack() as stack:
        async with server(_limited(120), **waiting) as running:
            idle = [await Client.connect(running.port) for _ in range(150)]
            for client in idle:
                stack.enter_context(client.stream.socket)
            await running.logged("accept_failed")
            assert await _status(running.port, "/health") == 200
            assert await _status(running.port, "/v1/models") == 503
            for client in idle:
                client.stream.socket.close()
            # The next loop's turn gives their descriptors back.
            while await _status(running.port, "/v1/models") != 200:
                pass
            (scarce,) = [
                r for r in running.records if r["event"] == "descriptors_scarce"
            ]
            assert (
                "may need 3128 file descriptors, and 120 are all" in scarce["message"]
            )
            assert await running.stop() == 0


async def test_enough_descriptors_are_no_record() -> None:
    """What the settings need is there: nothing is said."""
    few = {"MAX_CONNECTIONS": "100", "MAX_CONCURRENT_STREAMS": "100"}
    with trio.fail_after(60):
        async with server(_limited(328), **few) as running:
            assert await running.stop() == 0
    assert not [r for r in running.records if r["event"] == "descriptors_scarce"]


async def _status(port: int, path: str) -> int:
    async with await Client.connect(port) as client:
        await client.say(get(path))
        return status_of(await client.read_until(lambda data: b"\r\n\r\n" in data))
