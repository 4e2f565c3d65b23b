"""AnyIO on Trio: its locks, streams and TLS; Trio's own TLS beside it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import anyio
import trio
from anyio.streams.tls import TLSStream
from common import echo, holding, main, network, over_anyio, tls_pair, use

SERVER, CLIENT = tls_pair()

for name, make in (
    ("Lock", anyio.Lock),
    ("Lock fast_acquire", lambda: anyio.Lock(fast_acquire=True)),
    ("Semaphore", lambda: anyio.Semaphore(1)),
    ("CapacityLimiter", lambda: anyio.CapacityLimiter(1)),
    ("Condition", anyio.Condition),
):
    use("anyio", name, **holding(make), scopes=True)


async def anyio_tls(listener) -> None:
    """Talk TLS by AnyIO."""
    stream = await TLSStream.wrap(
        over_anyio(await listener.connect()),
        hostname="x",
        ssl_context=CLIENT,
        standard_compatible=False,
    )
    async with stream:
        await stream.send(b"a")
        assert await stream.receive() == b"a"


async def anyio_guarded_tls(listener) -> None:
    """The same, where the caller closes the transport of a failed handshake."""
    transport = over_anyio(await listener.connect())
    async with transport:
        stream = await TLSStream.wrap(transport, hostname="x", ssl_context=CLIENT)
        await stream.send(b"a")
        assert await stream.receive() == b"a"


async def trio_tls(listener) -> None:
    """Talk TLS by Trio itself."""
    stream = trio.SSLStream(
        await listener.connect(), CLIENT, server_hostname="x", https_compatible=True
    )
    async with stream:
        await stream.send_all(b"a")
        assert await stream.receive_some() == b"a"


use("anyio", "TLSStream.wrap", anyio_tls, world=network(echo, tls=SERVER))
use(
    "anyio",
    "TLSStream over a guarded one",
    anyio_guarded_tls,
    world=network(echo, tls=SERVER),
)
use("trio", "SSLStream", trio_tls, world=network(echo, tls=SERVER), scopes=True)


@contextlib.asynccontextmanager
async def items():
    """Yield a list of what was received."""
    yield SimpleNamespace(got=[])


async def anyio_channel(env) -> None:
    """Send through AnyIO's memory stream, with threads on the way."""
    send, receive = anyio.create_memory_object_stream[int](0)

    async def produce() -> None:
        async with send:
            for number in range(3):
                await send.send(await anyio.to_thread.run_sync(abs, -number))

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        async with receive:
            async for item in receive:
                env.got.append(item)


def in_order(env):
    """Complain about what arrived in another order than it was sent."""
    return [] if env.got == list(range(len(env.got))) else [f"got {env.got}"]


use("anyio", "memory object stream", anyio_channel, world=items, check=in_order)

if __name__ == "__main__":
    main()
