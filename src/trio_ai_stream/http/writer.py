"""The ASGI side of a streamed response: its head, its blocks, its end."""

from __future__ import annotations

from collections.abc import Iterable

from quart.utils import encode_headers

from trio_ai_stream.http.connection import Send, StreamResponse
from trio_ai_stream.http.incoming import Incoming


class Writer:
    """Writes one response; the head goes out with `start`, once."""

    __slots__ = ("_incoming", "_response", "_send", "started")

    def __init__(
        self, send: Send, response: StreamResponse, incoming: Incoming
    ) -> None:
        self._send = send
        self._response = response
        self._incoming = incoming
        self.started = False

    async def start(
        self,
        *,
        status: int,
        content_type: str,
        more: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Write the head: the response's own headers, as Quart finished them."""
        headers = self._response.headers
        headers["Content-Type"] = content_type
        for name, value in more:
            headers[name] = value
        self.started = True
        self._incoming.status = status
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
