"""The ASGI side of a streamed response: its head, its blocks, its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from trio_ai_stream.http.http_responses import Headers
from trio_ai_stream.http.request import RequestContext

Send = Callable[[Any], Awaitable[None]]


class Writer:
    """Writes one response; the head goes out with `start`, once.

    `fields` are the head's, besides those that `start` is given and that every response
    has (`http/http_responses.py`).
    """

    __slots__ = ("_fields", "_incoming", "_send", "started")

    def __init__(self, send: Send, fields: Headers, context: RequestContext) -> None:
        self._send = send
        self._fields = fields
        self._incoming = context
        self.started = False

    async def start(
        self,
        *,
        status: int,
        content_type: str,
        more: Iterable[tuple[str, str]] = (),
        body_follows: bool = False,
    ) -> None:
        """Write the head; it leaves with the first block, if that follows at once."""
        self.started = True
        self._incoming.status = status
        self._incoming.exchange.body_follows = body_follows
        said = [("content-type", content_type), *more]
        fields = [(k.lower().encode("ascii"), v.encode("ascii")) for k, v in said]
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*self._fields, *fields],
            }
        )

    async def write(self, data: bytes) -> None:
        """Write one block; blocks while the client does not read."""
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    async def finish(self, data: bytes = b"") -> bool:
        """Write the last block, if there is one, and the end of the response.

        Return whether it has all left this process, as far as the server says that.
        """
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": False}
        )
        return self._incoming.exchange.delivered is not False
