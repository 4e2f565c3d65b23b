"""A small HTTP server, for the clients of HTTP."""

from __future__ import annotations

import trio


async def serve(stream) -> None:
    """Answer each request with two bytes after a tenth of a second."""
    while await stream.receive_some():
        await trio.sleep(0.1)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
