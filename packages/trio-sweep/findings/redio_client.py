"""redio: a command on an open connection."""

from __future__ import annotations

import contextlib

import redio
from common import main, network, use
from resp_server import serve


@contextlib.asynccontextmanager
async def warm():
    """Yield a client that has a connection."""
    client = redio.Redis("redis://x")
    assert await client().get("warm").autodecode == "warm"
    yield client


async def get(client) -> None:
    """Ask for keys one after the other, and for the right ones."""
    for key in ("one", "two"):
        assert await client().get(key).autodecode == key


use("redio", "get", get, world=network(serve, within=warm), after=get)

if __name__ == "__main__":
    main()
