"""A well-behaved stream that runs while another client is hostile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tests.support.server.client import Client, events_of, get, info
from tests.support.server.servers import ServerProcess

EVENTS = 8


async def undisturbed(
    server: ServerProcess, hostile: Callable[[], Awaitable[None]]
) -> None:
    """Run `hostile` next to a stream: that completes, in the same process."""
    with trio.fail_after(30):
        async with await Client.connect(server.port) as client:
            stream = f"/stream?n={EVENTS}&every=0.01"
            await client.say(get(stream, "Connection: close"))
            await client.read_until(lambda data: b"data: 0" in data)
            await hostile()
            answer = await client.read_to_end()
            assert answer.endswith(b"0\r\n\r\n"), "the well-behaved stream was cut"
            assert events_of(answer) == [b"%d" % n for n in range(EVENTS)]
        assert (await info(server.port))["pid"] == server.process.pid
