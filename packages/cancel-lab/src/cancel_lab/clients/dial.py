"""Opens a chat stream over any transport."""

from __future__ import annotations

import ssl
from typing import Protocol

from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.connection import Connection, client_tls, connect
from cancel_lab.clients.http1 import ChatRequest, HTTP1Stream
from cancel_lab.clients.http2 import HTTP2Connection
from cancel_lab.clients.sse import Seen

SMALL_WINDOW = 4096  # bytes of receive buffer for a client that will stop reading


class ChatStream(Protocol):
    """A chat request under way, over whatever transport."""

    connection: Connection
    seen: Seen

    async def start(self) -> int:
        """Send the request and return when it was sent."""

    async def read(self) -> None:
        """Read once, and note what came."""

    async def read_tokens(self, count: int) -> None:
        """Read until ``count`` tokens were seen or the answer is over."""

    async def read_to_end(self) -> None:
        """Read until the answer is over."""

    async def idle(self) -> None:
        """Go on as a client that stopped reading; ends when the peer ends it."""

    async def act(self, act: Act) -> int:
        """End or stop taking the stream, and return when that was done."""


_contexts: dict[str, ssl.SSLContext] = {}


def _context(alpn: str) -> ssl.SSLContext:
    """Return one context for all dials: making one costs tens of milliseconds."""
    if alpn not in _contexts:
        _contexts[alpn] = client_tls(alpn)
    return _contexts[alpn]


async def dial(
    port: int,
    request: ChatRequest,
    transport: Transport,
    *,
    small_window: bool = False,
    sink: bytearray | None = None,
) -> ChatStream:
    """Connect and return a stream that has not been started.

    ``sink`` gets the bytes of the body, which are then not read as chat.
    Errors: OSError when nobody listens. Cancellation: nothing stays open.
    """
    alpn = "h2" if transport.http2 else "http/1.1"
    connection = await connect(
        port,
        tls=_context(alpn) if transport.tls else None,
        receive_buffer=SMALL_WINDOW if small_window else None,
    )
    if transport.http2:
        scheme = "https" if transport.tls else "http"
        return await HTTP2Connection(connection, scheme=scheme).open(request, sink=sink)
    pipelined = transport is Transport.H1_PIPELINED
    return HTTP1Stream(connection, request, pipelined=pipelined, sink=sink)
