"""Upstreams for the transport's tests: real sockets, or memory streams."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import trio
import trio.testing
import trustme

from trio_ai_stream.upstream.transport import TransportLimits, UpstreamTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

CLOSED_FIRST = trio.BrokenResourceError, trio.ClosedResourceError
"""What a server sees when the client closes first, as it does in many tests."""

both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])

AUTHORITY = trustme.CA()
SERVER_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("127.0.0.1", "localhost").configure_cert(SERVER_TLS)
CLIENT_TLS = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT_TLS)


@dataclass
class Request:
    """One request as it arrived."""

    head: bytes
    body: bytes = b""


class Peer:
    """One connection, seen from the server."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def request(self) -> Request | None:
        """Read one request, or None at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            if not await self.more():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        fields = head.lower().split(b"\r\n")[1:]
        if b"transfer-encoding: chunked" in fields:
            while b"0\r\n\r\n" not in self.buffer:
                if not await self.more():
                    return None
            body, self.buffer = self.buffer.split(b"0\r\n\r\n", 1)
            return Request(head, body)
        lengths = [f for f in fields if f.startswith(b"content-length:")]
        length = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(self.buffer) < length:
            if not await self.more():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Request(head, body)

    async def more(self) -> bool:
        """Read some more; False at the end."""
        data = bytes(await self.stream.receive_some(65_536))
        self.buffer += data
        return bool(data)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.stream.send_all(data)


Handler = Callable[[Peer], Awaitable[None]]


def answering(*answers: bytes) -> Handler:
    """Answer the n-th request of a connection with the n-th bytes, then close."""

    async def handle(peer: Peer) -> None:
        for answer in answers:
            if await peer.request() is None:
                return
            await peer.send(answer)

    return handle


def forever(answer: bytes) -> Handler:
    """Answer each request with the same bytes, and keep the connection."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(answer)

    return handle


async def begin(peer: Peer) -> None:
    """Answer a request with a head, and stay until the client leaves."""
    await peer.request()
    await peer.send(CHUNKED)
    await peer.more()


@dataclass
class Server:
    """A running server and what it has seen."""

    url: str
    port: int
    accepted: int = 0
    open: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    async def wait_open(self, count: int) -> None:
        """Wait until exactly this many connections are open."""
        while self.open != count:
            self.changed = trio.Event()
            await self.changed.wait()


@asynccontextmanager
async def serving(handler: Handler, *, tls: bool = False) -> AsyncIterator[Server]:
    """Run a server on a port of its own, over TLS if asked."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    server = Server(f"{'https' if tls else 'http'}://127.0.0.1:{port}", port)

    async def serve(stream: trio.SocketStream) -> None:
        server.accepted += 1
        server.open += 1
        server.changed.set()
        wrapped: trio.abc.Stream = stream
        if tls:
            wrapped = trio.SSLStream(
                stream, SERVER_TLS, server_side=True, https_compatible=True
            )
        try:
            with contextlib.suppress(*CLOSED_FIRST):
                await handler(Peer(wrapped))
        finally:
            stream.socket.close()
            server.open -= 1
            server.changed.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield server
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def unanswering() -> AsyncIterator[int]:
    """Yield a port of 127.0.0.2 whose kernel leaves every SYN unanswered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(trio.socket.socket())
        await listener.bind(("127.0.0.2", 0))
        listener.listen(0)  # once this queue is full, no SYN is answered
        address = listener.getsockname()
        for _ in range(3):
            filler = stack.enter_context(trio.socket.socket())
            with trio.move_on_after(0.05):
                await filler.connect(address)
        yield address[1]


@asynccontextmanager
async def client_of(
    *, limits: TransportLimits | None = None, budgets: httpx.Timeout | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, UpstreamTransport]]:
    """Yield a client over our transport, and the transport."""
    transport = UpstreamTransport(ssl_context=CLIENT_TLS, limits=limits)
    async with httpx.AsyncClient(transport=transport, timeout=budgets) as client:
        yield client, transport


@asynccontextmanager
async def in_memory(
    handler: Handler,
    *,
    limits: TransportLimits | None = None,
    budgets: httpx.Timeout | None = None,
) -> AsyncIterator[tuple[httpx.AsyncClient, UpstreamTransport]]:
    """Yield a client whose connections are memory streams served by the handler."""
    async with trio.open_nursery() as nursery:

        async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            return ours

        async def serve(stream: trio.abc.Stream) -> None:
            async with stream:
                with contextlib.suppress(*CLOSED_FIRST):
                    await handler(Peer(stream))

        transport = UpstreamTransport(connect=connect, limits=limits)
        async with httpx.AsyncClient(transport=transport, timeout=budgets) as client:
            yield client, transport
        nursery.cancel_scope.cancel(reason="the test is over")


class Boundary(trio.abc.Instrument):
    """Cancels a scope after the k-th step of any task."""

    def __init__(self, scope: trio.CancelScope, k: int) -> None:
        self.scope = scope
        self.left = k

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="the sweep got here")
