"""An endpoint that streams: reached directly, or through Quart where Quart is needed.

What Quart does for a request (a context, a match of the route, header objects, hooks)
is a quarter of the time to a stream's first content, and an endpoint that takes one
body and writes one stream needs none of it. So `ASGIConnection` calls it itself. A
cross-origin request goes through Quart all the same, because quart-cors answers it from
one of Quart's hooks; and the route is Quart's in any case, for the 405, `Allow`, and
the OpenAPI document.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio
from quart import Response, request
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from trio_ai_stream.http.admit import admit_stream
from trio_ai_stream.http.http_responses import (
    DocumentResponder,
    EventResponder,
    Headers,
    Send,
)
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.resumable_run import GRACE, ResumableRun
from trio_ai_stream.http.services import BodyBudget, Services
from trio_ai_stream.server.limits import SLOWEST_BODY
from trio_ai_stream.stream.estimate import prompt_size
from trio_ai_stream.stream.protocols import Responder, UpstreamRequest
from trio_ai_stream.stream.relay import relay
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.dialect import Dialect, RequestLimits
from trio_ai_stream.wire.problems import Problem, Refused

Receive = Callable[[], Awaitable[Any]]
Run = Callable[[Send, Headers], Awaitable[None]]
"""Writes one response, with these headers in its head."""
MakeResponder = Callable[[Send, Headers, RequestContext], Responder]

UNSUPPORTED_ENCODING: Final = "unsupported_content_encoding"
# Without these a proxy may hold events back or compress them.
STREAM_HEADERS: Final[Headers] = [
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class StreamRun:
    """A stream that has been admitted, ready to be relayed to its client."""

    services: Services
    context: RequestContext
    stream: Stream
    respond: MakeResponder

    def __call__(self, send: Send, headers: Headers) -> Awaitable[None]:
        """Relay the stream; the relay stands on the stack without a frame of ours."""
        services = self.services
        assert services.upstream is not None
        responder = self.respond(send, headers, self.context)
        return relay(
            self.stream,
            services.upstream,
            responder,
            services.timer_queue,
            services.retries,
        )


class Endpoint:
    """Where a body of one dialect is posted, and what makes a stream of it."""

    def __init__(self, services: Services, dialect: Dialect) -> None:
        self.services = services
        self.dialect = dialect
        # A whole answer is its own first content, however long the model takes over it:
        # so only the deadline bounds it.
        self._document_budgets = dataclasses.replace(
            services.budgets, first_token_s=math.inf
        )

    async def open(self, context: RequestContext, body: bytes) -> Run:
        """Return the run of an admitted stream.

        :raises Refused: the request gets no stream.
        """
        services, dialect = self.services, self.dialect
        settings = services.settings
        limits = RequestLimits(
            settings.OPENROUTER_MODEL,
            settings.MAX_PROMPT_LENGTH,
            settings.MAX_MESSAGES_LENGTH,
            settings.HEARTBEAT_EVENTS,
        )
        asked = dialect.parse(body, limits)
        request = UpstreamRequest(
            context.request_id,
            asked.model,
            asked.body,
            dialect,
            whole=not asked.stream,
            choices=asked.choices,
            headers=context.forwarded(dialect.forwarded),
            prompt_size=prompt_size(asked.body, asked.prompt_chars),
            user=asked.user,
        )
        wanted = context.field(GRACE)
        grace_s = 0.0
        if wanted is not None and asked.stream:
            grace_s = services.resumables.grant(wanted)
        stream = await admit_stream(
            services,
            context,
            request,
            services.budgets if asked.stream else self._document_budgets,
        )
        respond: MakeResponder = partial(DocumentResponder, dialect=dialect)
        if asked.stream:
            assert services.upstream is not None
            encoder = dialect.encoder(asked, context.request_id, services.upstream.kind)
            if grace_s:
                return ResumableRun(services, context, stream, encoder, grace_s)
            respond = partial(EventResponder, dialect=dialect, encoder=encoder)
        run = StreamRun(services, context, stream, respond)
        return run if wanted is None else partial(_without_grace, run)

    async def answer_through_quart(self) -> StreamResponse:
        """Answer as a route of Quart's."""
        context = RequestContext.current()
        require_json(context)
        body = await request.get_data(cache=False)
        assert isinstance(body, bytes)
        return StreamResponse(await self.open(context, body))


def _without_grace(run: Run, send: Send, headers: Headers) -> Awaitable[None]:
    """Write a response to a client that asked for a grace and gets none."""
    return run(send, [*headers, (GRACE, b"0")])


class StreamResponse(Response):
    """A response whose head and body `run(send, headers)` writes itself."""

    def __init__(self, run: Run) -> None:
        super().__init__(status=200)
        self.run = run
        self.headers.pop("Content-Type", None)  # the responder says it
        for name, value in STREAM_HEADERS:
            self.headers[name.decode("ascii")] = value.decode("ascii")


def require_json(context: RequestContext) -> None:
    """Let a request pass that says its body is JSON, and not compressed.

    :raises Refused: 415 (RFC 9110 section 15.5.16).
    """
    encoding = context.field(b"content-encoding") or "identity"
    if encoding.strip().lower() != "identity":
        raise Refused(
            Problem(
                415,
                UNSUPPORTED_ENCODING,
                "content encoding: expected none (identity),"
                f" got {encoding[:64]}; send the body as it is",
            )
        )
    said = context.media_type
    if said != "application/json" and not said.endswith("+json"):
        raise Refused(
            Problem(
                415,
                "unsupported_media_type",
                f"content type: expected application/json, got {said[:64] or 'none'}",
            )
        )


async def read_body(
    context: RequestContext,
    receive: Receive,
    budget: BodyBudget,
    *,
    at_most: int,
    within_s: float,
) -> bytes | None:
    """Return a request's body, None if its client went away before the end of it.

    A server that bounds the time itself is left to it: a scope less for each request.

    :raises Refused: 503; all requests together hold as much as they may.
    :raises RequestEntityTooLarge: it is longer than `at_most` bytes, or says so.
    :raises RequestTimeout: it took longer than `within_s` and what the bytes that came
        take at the slowest rate.
    """
    announced = context.field(b"content-length") or "0"
    if announced.isdecimal() and int(announced) > at_most:
        raise RequestEntityTooLarge
    parts: list[bytes] = []
    size = 0
    bounded = context.exchange.limits_body_time
    with nullcontext() if bounded else trio.move_on_after(within_s) as scope:
        while (message := await receive())["type"] == "http.request":
            parts.append(message["body"])
            size += len(message["body"])
            if scope is not None:
                scope.deadline += len(message["body"]) / SLOWEST_BODY
            if size > at_most:
                raise RequestEntityTooLarge
            budget.take(context, len(message["body"]))
            if not message["more_body"]:
                return b"".join(parts)
        return None
    raise RequestTimeout
