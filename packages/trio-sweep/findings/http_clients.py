"""httpcore, httpcore2 and httpx: requests over TLS and without, in memory."""

from __future__ import annotations

import importlib

import httpx
import trio
from common import main, network, tls_pair, use
from http_server import serve

SERVER, CLIENT = tls_pair()

for name in ("httpcore", "httpcore2"):
    library = importlib.import_module(name)

    def pool_of(library=library):
        return library.AsyncConnectionPool(ssl_context=CLIENT, max_connections=1)

    async def https(pool) -> None:
        assert (await pool.request("GET", "https://x/")).content == b"ab"

    async def http(pool) -> None:
        assert (await pool.request("GET", "http://x/")).content == b"ab"

    async def three(pool) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(http, pool)

    use(
        name,
        "https",
        https,
        world=network(serve, tls=SERVER, within=pool_of),
        after=https,
    )
    use(name, "http", http, world=network(serve, within=pool_of), after=http)
    use(
        name,
        "three on one connection",
        three,
        world=network(serve, within=pool_of),
        after=http,
    )


def client_of():
    """Make an httpx client over the memory network."""
    return httpx.AsyncClient(verify=CLIENT, trust_env=False)


async def get(client) -> None:
    """Ask with httpx."""
    assert (await client.get("https://x/")).content == b"ab"


async def stream(client) -> None:
    """Read an answer as a stream."""
    async with client.stream("GET", "http://x/") as response:
        assert [chunk async for chunk in response.aiter_bytes()] == [b"ab"]


use(
    "httpx", "https", get, world=network(serve, tls=SERVER, within=client_of), after=get
)
use("httpx", "stream", stream, world=network(serve, within=client_of), after=stream)

if __name__ == "__main__":
    main()
