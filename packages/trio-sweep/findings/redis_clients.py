"""coredis: commands on an open connection, and the connect itself."""

from __future__ import annotations

import contextlib

import coredis
import trio
from common import main, network, use
from resp_server import serve


def client_of():
    """Make a client; the network ignores its address."""
    return coredis.Redis(host="x", port=6379, decode_responses=True)


@contextlib.asynccontextmanager
async def warm():
    """Yield a client that has a connection."""
    async with client_of() as client:
        assert await client.get("warm") == "warm"
        yield client


async def get(client) -> None:
    """Ask for keys one after the other, and for the right ones."""
    for key in ("one", "two"):
        assert await client.get(key) == key


async def three(client) -> None:
    """Ask for three keys from three tasks."""

    async def ask(key) -> None:
        assert await client.get(key) == key

    async with trio.open_nursery() as nursery:
        for key in ("one", "two", "three"):
            nursery.start_soon(ask, key)


async def pipeline(client) -> None:
    """Ask for two keys at once."""
    async with client.pipeline(transaction=False) as pipe:
        one, two = pipe.get("one"), pipe.get("two")
    assert (await one, await two) == ("one", "two")


async def connect(_listener) -> None:
    """Connect and ask."""
    async with client_of() as client:
        await get(client)


WARM = {"world": network(serve, within=warm), "after": get}
use("coredis", "get", get, **WARM)
use("coredis", "pipeline", pipeline, **WARM)
use("coredis", "three at once", three, **WARM)
use("coredis", "connect", connect, world=network(serve))

if __name__ == "__main__":
    main()
