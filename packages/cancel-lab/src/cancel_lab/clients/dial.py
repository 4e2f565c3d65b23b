"""Opens a chat stream over any transport."""

from __future__ import annotations

import ssl

from cancel_lab.clients.acts import Transport
from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.connection import client_tls, connect
from cancel_lab.clients.http1 import HTTP1Stream
from cancel_lab.clients.http2 import HTTP2Connection

SMALL_WINDOW = 4096  # bytes of receive buffer for a client that will stop reading


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
