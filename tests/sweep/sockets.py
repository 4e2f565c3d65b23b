"""Upstream over a pair of Unix sockets, with TLS or without: as the transport has it.

What one end of such a pair sends is at once readable at the other, so runs stay
deterministic. From the dial on everything is the server's own: its link over a socket,
its TLS, its way through a proxy. Only the connecting itself and DNS are left out.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio
import trustme

from tests.sweep.scenario import HOST
from tests.sweep.wire import Handle, Wire
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import dial

if TYPE_CHECKING:
    from tests.sweep.network import Network


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return upstream's TLS, and that of a client who trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class SocketWire(Wire):
    """A connection by sockets; it cannot be reset, nor be spoken into from outside.

    What goes through it is noted where upstream sees it, behind TLS.
    """

    def __init__(self, tick: Callable[[], int], *, tls: bool) -> None:
        super().__init__(tick)
        near, far = socket.socketpair()
        near.setblocking(False)
        self.socket = trio.socket.from_stdlib_socket(near)
        self._raw = far
        self._far = trio.SocketStream(trio.socket.from_stdlib_socket(far))
        self.far = self._far
        self._tls = tls

    @property
    def carrier(self) -> object:
        return self.socket

    @property
    def open(self) -> bool:
        return self.socket.fileno() >= 0

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)  # which Trio need not know

    def close(self) -> None:
        """Close both ends: nobody was connected."""
        self.socket.close()
        self._far.socket.close()

    async def serve(self, handle: Handle) -> None:
        stream: Any = self._far
        if self._tls:
            stream = trio.SSLStream(
                self._far, contexts()[0], server_side=True, https_compatible=True
            )
        await handle(_Noted(stream, self))


class _Noted(trio.abc.Stream):
    """Upstream's end, which notes what goes through it."""

    def __init__(self, stream: trio.abc.Stream, wire: SocketWire) -> None:
        self._stream = stream
        self._wire = wire

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.received(bytes(data))  # it is in flight before the first await
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        if data and self._wire.open:  # else it was on its way
            self._wire.sent(data)
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextlib.contextmanager
def dialled_by(network: Network, *, tls: bool) -> Iterator[None]:
    """Let the transport's dials end here instead of at the kernel's TCP."""

    async def connect_one(address: dial.Address) -> tuple[trio.socket.SocketType, str]:
        return await network.connect_socket(tls=tls), str(address[1][0])

    before = dial._connect_one, dial.watch_peer
    dial._connect_one = connect_one
    dial.watch_peer = lambda *_: None  # options of TCP
    try:
        yield
    finally:
        dial._connect_one, dial.watch_peer = before


def use_sockets(upstream: OpenRouter) -> None:
    """Let the next connections be dialled, and trust upstream's certificate."""
    dialer = upstream._transport._dialer
    dialer._connect = None
    dialer._ssl_context = contexts()[1]
