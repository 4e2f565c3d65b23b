"""httpcore, httpcore2 and httpx: requests over TLS and without, in memory."""

from __future__ import annotations

import contextlib
import importlib
import ssl

import httpx
import trio
import trustme
from common import show

from trio_sweep import memory_listener

AUTHORITY = trustme.CA()
SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
AUTHORITY.issue_cert("x").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)


async def serve(stream) -> None:
    """Answer each request with two bytes after a tenth of a second."""
    while await stream.receive_some():
        await trio.sleep(0.1)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")


def world(tls, pool_of):
    """Make the world: a server and a pool that outlives the swept request."""

    @contextlib.asynccontextmanager
    async def inner():
        async with memory_listener(serve, tls=tls, connect_s=0.01) as listener:
            with listener.as_tcp():
                async with pool_of() as pool:
                    yield pool

    return inner


def backend_of(name):
    """Return the library's own Trio backend, without questions about sockets."""
    trios = importlib.import_module(f"{name}._backends.trio")

    class Stream(trios.TrioStream):
        def get_extra_info(self, info):
            ours = info in ("socket", "is_readable")
            return None if ours else super().get_extra_info(info)

        async def start_tls(self, *args, **kwargs):
            return Stream((await super().start_tls(*args, **kwargs))._stream)

    class Backend(trios.TrioBackend):
        async def connect_tcp(self, host, port, **_):
            return Stream(await trio.open_tcp_stream(host, port))

    return Backend()


for name in ("httpcore", "httpcore2"):
    library = importlib.import_module(name)

    def pool_of(library=library, name=name):
        return library.AsyncConnectionPool(
            ssl_context=CLIENT, network_backend=backend_of(name), max_connections=1
        )

    async def https(pool) -> None:
        assert (await pool.request("GET", "https://x/")).content == b"ab"

    async def http(pool) -> None:
        assert (await pool.request("GET", "http://x/")).content == b"ab"

    async def three(pool) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(http, pool)

    show(name, "https", https, world=world(SERVER, pool_of), after=https)
    show(name, "http", http, world=world(None, pool_of), after=http)
    show(name, "three on one connection", three, world=world(None, pool_of), after=http)


def client_of():
    """Make an httpx client over the memory network."""
    transport = httpx.AsyncHTTPTransport(verify=CLIENT)
    transport._pool._network_backend = backend_of("httpcore")
    return httpx.AsyncClient(transport=transport, trust_env=False)


async def get(client) -> None:
    """Ask with httpx."""
    assert (await client.get("https://x/")).content == b"ab"


async def stream(client) -> None:
    """Read an answer as a stream."""
    async with client.stream("GET", "http://x/") as response:
        assert [chunk async for chunk in response.aiter_bytes()] == [b"ab"]


show("httpx", "https", get, world=world(SERVER, client_of), after=get)
show("httpx", "stream", stream, world=world(None, client_of), after=stream)
