"""What the tests of the shared gate do again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import coredis
import trio

from tests.admission.valkey import Server
from trio_ai_stream.admission.gate import Permit
from trio_ai_stream.admission.shared.shared_gate import SharedGate

GateMaker = Callable[..., SharedGate]


@asynccontextmanager
async def connected(
    server: Server, make: GateMaker, **options: Any
) -> AsyncIterator[tuple[SharedGate, coredis.Redis[bytes]]]:
    """Run one gate, and a plain client for the same server, for a block."""
    gate = make(server.url, **options)
    client = coredis.Redis.from_url(server.url)
    async with client, trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        yield gate, client
        nursery.cancel_scope.cancel(reason="the test is over")


async def evalsha_calls(client: coredis.Redis[bytes]) -> int:
    """Return how many EVALSHA the server has seen."""
    statistics = await client.info("commandstats")
    found: Any = statistics.get("cmdstat_evalsha", {"calls": 0})
    return int(found["calls"])


async def granted(gate: SharedGate, client_id: str, request_id: str) -> Permit:
    """Ask until a permit is granted; a release reaches the server a moment later."""
    with trio.fail_after(30):
        while True:
            answer = await gate.acquire_stream(client_id, request_id)
            if isinstance(answer, Permit):
                return answer


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a task in the background does; a server gives no signal of it."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - as above
            await trio.sleep(0.005)


async def until_async(ask: Callable[[], Any], expected: object) -> None:
    """Ask the server until it says what is expected."""
    with trio.fail_after(30):
        while await ask() != expected:  # noqa: ASYNC110 - as above
            await trio.sleep(0.005)
