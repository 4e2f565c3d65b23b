"""coredis and redio against a small RESP server on loopback."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import coredis
import redio
import trio
from common import REAL_SOCKETS, show

HELLO = (
    b"%4\r\n$2\r\nid\r\n:7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
    b"$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n"
)


async def serve(stream) -> None:
    """Answer GET with the key itself, after a tenth of a second."""
    buffer = b""

    async def take(what):
        nonlocal buffer
        while len(buffer) < what if isinstance(what, int) else what not in buffer:
            if not (data := await stream.receive_some()):
                raise EOFError
            buffer += data
        size = what if isinstance(what, int) else buffer.index(what) + len(what)
        taken, buffer = buffer[:size], buffer[size:]
        return taken

    with contextlib.suppress(EOFError, trio.BrokenResourceError, OSError):
        while True:
            words = []
            for _ in range(int((await take(b"\r\n"))[1:])):
                size = int((await take(b"\r\n"))[1:])
                words.append((await take(size + 2))[:-2])
            if words[0].upper() == b"GET":
                await trio.sleep(0.1)
                answer = b"$%d\r\n%b\r\n" % (len(words[1]), words[1])
            else:
                answer = HELLO if words[0].upper() == b"HELLO" else b"+OK\r\n"
            await stream.send_all(answer)


def world(client_of):
    """Make the world: a server on loopback, and what `client_of` opens."""

    @contextlib.asynccontextmanager
    async def inner():
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            await nursery.start(trio.serve_listeners, serve, [listener])
            async with client_of(port) as client:
                yield client
            nursery.cancel_scope.cancel()

    return inner


def connected(port):
    """Open a coredis client."""
    return coredis.Redis(host="127.0.0.1", port=port, decode_responses=True)


@contextlib.asynccontextmanager
async def warm(port):
    """Yield a coredis client that has a connection."""
    async with connected(port) as client:
        assert await client.get("warm") == "warm"
        yield client


@contextlib.asynccontextmanager
async def cold(port):
    """Yield the port alone."""
    yield SimpleNamespace(port=port)


@contextlib.asynccontextmanager
async def redio_client(port):
    """Yield a redio client that has a connection."""
    client = redio.Redis(f"redis://127.0.0.1:{port}")
    assert await client().get("warm").autodecode == "warm"
    yield client


async def get(client) -> None:
    """Ask for keys one after the other, and for the right ones."""
    for key in ("one", "two"):
        assert await client.get(key) == key


async def pipeline(client) -> None:
    """Ask for two keys at once."""
    async with client.pipeline(transaction=False) as pipe:
        one, two = pipe.get("one"), pipe.get("two")
    assert (await one, await two) == ("one", "two")


async def connect(env) -> None:
    """Connect and ask."""
    async with connected(env.port) as client:
        await get(client)


async def redio_get(client) -> None:
    """The same with redio."""
    for key in ("one", "two"):
        assert await client().get(key).autodecode == key


common = {"settle_s": 0.004, "seeds": 2, "allow": REAL_SOCKETS}
show("coredis", "get", get, world=world(warm), after=get, **common)
show("coredis", "pipeline", pipeline, world=world(warm), after=get, **common)
show("coredis", "connect", connect, world=world(cold), **common)
redio_world = world(redio_client)
show("redio", "get", redio_get, world=redio_world, after=redio_get, **common)
