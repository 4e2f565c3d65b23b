"""anyio, tricycle, trio-util and aiologic: their synchronization and streams."""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from types import SimpleNamespace

import aiologic
import anyio
import tricycle
import trio
import trio_util
import trustme
from anyio.streams.tls import TLSStream
from common import show

from trio_sweep import MemoryListener, memory_listener

AUTHORITY = trustme.CA()
SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
AUTHORITY.issue_cert("x").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)


def holding(make, count=3):
    """Let some tasks take turns at what `make` makes; it must be free afterwards."""

    @contextlib.asynccontextmanager
    async def world():
        yield make()

    async def turn(it) -> None:
        async with it:
            await trio.sleep(1)

    async def body(it) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(turn, it)

    return {"body": body, "world": world, "after": turn}


for package, name, make in (
    ("anyio", "Lock", anyio.Lock),
    ("anyio", "Lock fast_acquire", lambda: anyio.Lock(fast_acquire=True)),
    ("anyio", "Semaphore", lambda: anyio.Semaphore(1)),
    ("anyio", "CapacityLimiter", lambda: anyio.CapacityLimiter(1)),
    ("anyio", "Condition", anyio.Condition),
    ("aiologic", "Lock", aiologic.Lock),
    ("aiologic", "Semaphore", lambda: aiologic.Semaphore(1)),
    ("aiologic", "RLock", aiologic.RLock),
    ("aiologic", "CapacityLimiter", lambda: aiologic.CapacityLimiter(1)),
):
    show(package, name, **holding(make), scopes=True)


@contextlib.asynccontextmanager
async def rwlock():
    """Yield tricycle's lock of readers and writers."""
    yield tricycle.RWLock()


async def readers_and_writer(lock) -> None:
    """Two readers and a writer."""

    async def use(guard) -> None:
        async with guard():
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, lock.read_locked)
        nursery.start_soon(use, lock.write_locked)
        nursery.start_soon(use, lock.read_locked)


async def service() -> None:
    """A nursery whose services end after its work."""
    async with tricycle.open_service_nursery() as nursery:
        nursery.start_soon(trio.sleep, 2)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


show("tricycle", "RWLock", readers_and_writer, world=rwlock, after=readers_and_writer)
show("tricycle", "open_service_nursery", service, scopes=True)


async def echo(stream) -> None:
    """Send back what comes."""
    while data := await stream.receive_some():
        await stream.send_all(data)


def network(tls=None):
    """Make a world with an echo server."""

    @contextlib.asynccontextmanager
    async def world():
        async with memory_listener(echo, tls=tls) as listener:
            yield listener

    return world


async def buffered(listener: MemoryListener) -> None:
    """Read lines by tricycle's TextReceiveStream."""
    async with await listener.connect() as stream:
        await stream.send_all(b"one\ntwo\n")
        lines = tricycle.TextReceiveStream(stream)
        assert await lines.receive_line() == "one\n"


show("tricycle", "TextReceiveStream", buffered, world=network())


@contextlib.asynccontextmanager
async def value():
    """Yield trio-util's observable value."""
    yield trio_util.AsyncValue(0)


async def waits_for_values(it) -> None:
    """Wait for values in several ways, while another task sets them."""

    async def change() -> None:
        for number in range(1, 4):
            await trio.sleep(1)
            it.value = number

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await trio_util.wait_any(lambda: it.wait_value(2), partial(trio.sleep, 9))
        with it.open_transform(lambda n: n * 2) as doubled:
            await doubled.wait_value(6)


async def periodic() -> None:
    """Three turns of a periodic loop, and a compound of awaitables."""
    turns = 0
    async with contextlib.aclosing(trio_util.periodic(1)) as ticks:
        async for _ in ticks:
            turns += 1
            if turns == 3:
                break
    await trio_util.wait_all(partial(trio.sleep, 1), partial(trio.sleep, 2))


show("trio-util", "AsyncValue", waits_for_values, world=value, scopes=True)
show("trio-util", "periodic and wait_all", periodic, scopes=True)


class OverTrio(anyio.abc.ByteStream):
    """A stream of Trio's for AnyIO."""

    def __init__(self, stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes=65536):
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item) -> None:
        await self._stream.send_all(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def anyio_tls(listener) -> None:
    """Talk TLS by AnyIO."""
    stream = await TLSStream.wrap(
        OverTrio(await listener.connect()),
        hostname="x",
        ssl_context=CLIENT,
        standard_compatible=False,
    )
    async with stream:
        await stream.send(b"a")
        assert await stream.receive() == b"a"


async def anyio_guarded_tls(listener) -> None:
    """The same, where the caller closes the transport of a failed handshake."""
    transport = OverTrio(await listener.connect())
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


show("anyio", "TLSStream.wrap", anyio_tls, world=network(SERVER))
show("anyio", "TLSStream over a guarded one", anyio_guarded_tls, world=network(SERVER))
show("trio", "SSLStream", trio_tls, world=network(SERVER), scopes=True)


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


show("anyio", "memory object stream", anyio_channel, world=items, check=in_order)
