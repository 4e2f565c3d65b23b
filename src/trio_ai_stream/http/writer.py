"""The ASGI side of a streamed response: its head, its blocks, its end."""

from __future__ import annotations

from quart.utils import encode_headers

from trio_ai_stream.http.connection import Send, StreamResponse


class Writer:
    """Writes one response; the head goes out with `start`, once."""

    __slots__ = ("_response", "_send", "started")

    def __init__(self, send: Send, response: StreamResponse) -> None:
        self._send = send
        self._response = response
        self.started = False

    async def start(self, *, status: int, content_type: str) -> None:
        """Write the head: the response's own headers, as Quart finished them."""
        headers = self._response.headers
        headers["Content-Type"] = content_type
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": encode_headers(headers),
            }
        )

    async def write(self, data: bytes) -> None:
        """Write one block; blocks while the client does not read."""
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    async def finish(self) -> None:
        """Write the end of the response."""
        await self._send(
            {"type": "http.response.body", "body": b"", "more_body": False}
        )
