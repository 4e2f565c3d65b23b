"""Responses: the headers that each carries, and streams and documents through ASGI.

Headers are added to the head where it is written, as bytes: bytes cost a fraction of
Quart's header objects.

Each writer writes one response: its head once, its blocks, its end. But for a dialect
that answers at once, the head stays unwritten until it is known whether upstream
answers, so that a refusal has its true status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from quart import Response

from trio_ai_stream.dialects.messages import MESSAGES
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.stream.lifecycle import Ending
from trio_ai_stream.wire.dialect import CONTENT_TYPE, Dialect, EventEncoder
from trio_ai_stream.wire.events import Answer, Done, Item, Raw
from trio_ai_stream.wire.problems import Problem

Headers = list[tuple[bytes, bytes]]

SECURITY: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # No page of another origin has a use for what it may not read. What CORS allows is
    # read in another mode, which this does not touch.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # The filter that this header once steered is gone from browsers, and where it still
    # is, it opens holes; the policy above does its work (OWASP HTTP headers cheat
    # sheet).
    (b"x-xss-protection", b"0"),
)
# Sent over TLS only (RFC 6797 section 7.2).
TRANSPORT_SECURITY: Final = (b"strict-transport-security", b"max-age=31536000")


def complete_headers(headers: Headers, context: RequestContext) -> None:
    """Add what the response of a request lacks; a route's own value is kept."""
    present = {name for name, _ in headers}
    if b"cache-control" not in present:
        headers.append((b"cache-control", b"no-store"))
    if context.varies_by_origin and b"vary" not in present:
        headers.append((b"vary", b"Origin"))
    request_id = context.request_id.encode("ascii")
    headers.append((b"x-request-id", request_id))
    if context.path.startswith(MESSAGES.path):  # where Anthropic's SDKs look for it
        headers.append((b"request-id", request_id))
    if context.decision is not None:
        for name, value in context.decision.headers():
            if (key := _name(name)) not in present:
                headers.append((key, value.encode("ascii")))
    fixed = (*SECURITY, TRANSPORT_SECURITY) if context.secure else SECURITY
    headers += [header for header in fixed if header[0] not in present]


@lru_cache(maxsize=16)  # a live stream holds its head: let all of them share the names
def _name(name: str) -> bytes:
    return name.lower().encode("ascii")


def json_response(document: msgspec.Struct | bytes, status: int = 200) -> Response:
    """Return a document, or JSON that is encoded already, as a response."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    response = Response(body, status)
    response.headers["Content-Type"] = "application/json"
    response.headers["Cache-Control"] = "no-store"
    return response


Send = Callable[[Any], Awaitable[None]]
JSON = "application/json"


class ASGIWriter:
    """Writes one response; the head goes out with `start`, once.

    `headers` are the head's, besides those that `start` is given and that every
    response has.
    """

    __slots__ = ("_context", "_headers", "_send", "started")

    def __init__(self, send: Send, headers: Headers, context: RequestContext) -> None:
        self._send = send
        self._headers = headers
        self._context = context
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
        self._context.status = status
        self._context.exchange.body_follows = body_follows
        said = [("content-type", content_type), *more]
        own = [(k.lower().encode("ascii"), v.encode("ascii")) for k, v in said]
        headers = [*self._headers, *own]
        complete_headers(headers, self._context)
        self._context.decision = None  # it has been said
        await self._send(
            {"type": "http.response.start", "status": status, "headers": headers}
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
        return self._context.exchange.delivered is not False

    async def refuse(self, dialect: Dialect, problem: Problem) -> bool:
        """Write a whole error response; return whether it has left."""
        status, more, body = dialect.error(problem, self._context.request_id)
        await self.start(status=status, content_type=JSON, more=more)
        return await self.finish(body)


class EventResponder(ASGIWriter):
    """Answers with a stream of events, as the dialect writes them.

    If the dialect has nothing to say before upstream answers, the head goes out when it
    does with 200, or with the first heartbeat: a client that waits for a slow model
    must see a sign of life, and the status is its price.
    """

    __slots__ = ("_dialect", "_encoder", "_opening")

    def __init__(
        self,
        send: Send,
        headers: Headers,
        context: RequestContext,
        *,
        dialect: Dialect,
        encoder: EventEncoder,
    ) -> None:
        super().__init__(send, headers, context)
        self._dialect = dialect
        self._encoder = encoder
        self._opening = encoder.opening

    @property
    def held(self) -> tuple[int, int]:
        """What the encoder keeps for the end."""
        return self._encoder.held

    async def accepted(self) -> None:
        """Write the head and the opening, if there is one, before upstream answers."""
        if self._opening:
            await self.start(status=200, content_type=CONTENT_TYPE, body_follows=True)
            await self.write(self._take_opening())

    async def opened(self) -> None:
        """Write the head, unless the opening, a heartbeat or an earlier try has."""
        if not self.started:
            await self.start(status=200, content_type=CONTENT_TYPE)

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write what a block holds for the client; return (events, bytes) written."""
        frames, count = self._encoder.content(items)
        if frames:  # as `write` does it, without its frame on the stack of each event
            await self._send(
                {"type": "http.response.body", "body": frames, "more_body": True}
            )
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Write a sign of life, after the head."""
        await self.opened()
        await self.write(self._encoder.heartbeat())

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write the terminal event, or an error as the response itself."""
        problem = ending.problem
        if problem is not None and not (self.started or self._opening):
            return await self.refuse(self._dialect, problem)
        await self.opened()
        frame = self._encoder.ending(problem, answer)
        return await self.finish(self._take_opening() + frame)

    def _take_opening(self) -> bytes:
        """Return the opening once: a cancel may come between the head and it."""
        opening, self._opening = self._opening, b""
        return opening


class DocumentResponder(ASGIWriter):
    """Answers `stream: false`: upstream's document as it is, or an error.

    It cannot write a sign of life: a JSON response has no room for one before its
    status is known. Once the head has said how long the document is, the document
    follows, even if the stream is ended between the two: nothing else can. Its last
    byte goes out with the end: a client that has all of it may leave at once.
    """

    __slots__ = ("_dialect", "_unwritten")

    def __init__(
        self,
        send: Send,
        headers: Headers,
        context: RequestContext,
        *,
        dialect: Dialect,
    ) -> None:
        super().__init__(send, headers, context)
        self._dialect = dialect
        self._unwritten = b""

    @property
    def held(self) -> tuple[int, int]:
        """What of the document goes out with the end: all of it, or the last byte."""
        left = len(self._unwritten)
        return int(left > 1), left

    async def accepted(self) -> None:
        """Do nothing: the status is not known yet."""

    async def opened(self) -> None:
        """Do nothing: the document may still turn out to be an error."""

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the document, if it is one and whole; return (events, bytes)."""
        first = items[0]
        if type(first) is not Raw or type(items[-1]) is not Done:
            return 0, 0
        self._unwritten = document = first.payload
        length = ("Content-Length", str(len(document)))
        await self.start(
            status=200, content_type=JSON, more=[length], body_follows=True
        )
        self._unwritten = document[-1:]
        await self.write(document[:-1])
        return 1, len(document) - 1

    async def heartbeat(self) -> None:
        """Do nothing."""

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write the end of the document, or the error if there is none."""
        if ending.problem is not None and not self.started:
            return await self.refuse(self._dialect, ending.problem)
        return await self.finish(self._unwritten)
