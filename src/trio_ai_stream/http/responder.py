"""The responses that this server writes itself through ASGI: streams and one document.

Each class writes one response: its head once, its blocks, its end. `/chat` answers at
once. The two of `/v1/chat/completions` leave the head unwritten until it is known
whether upstream answers, so that a refusal has its true status.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from trio_ai_stream.http.http_responses import Headers, complete_headers
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.stream.outcome import Ending
from trio_ai_stream.stream.transcript import Answer
from trio_ai_stream.wire import openai_responses, sse
from trio_ai_stream.wire.events import Done, Item, Raw
from trio_ai_stream.wire.problems import Problem

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


class ChatResponder(ASGIWriter):
    """Answers `POST /chat`: at once, and everything as events."""

    __slots__ = ("_connected", "_encoder")

    def __init__(
        self,
        send: Send,
        headers: Headers,
        context: RequestContext,
        *,
        encoder: sse.ChatEncoder,
        connected: bytes,
    ) -> None:
        super().__init__(send, headers, context)
        self._encoder = encoder
        self._connected = connected

    async def accepted(self) -> None:
        """Write the head and `connected`, before upstream answers."""
        await self.start(status=200, content_type=sse.CONTENT_TYPE, body_follows=True)
        await self.write(self._take_connected())

    async def opened(self) -> None:
        """Do nothing: the client has its status already."""

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the content of a block; return (events, bytes) written."""
        frames, count = self._encoder.content(items)
        if frames:  # as `write` does it, without its frame on the stack of each event
            await self._send(
                {"type": "http.response.body", "body": frames, "more_body": True}
            )
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Write a comment."""
        await self.write(sse.HEARTBEAT)

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write `done` or `error`, and the end of the response."""
        if not self.started:
            await self.start(status=200, content_type=sse.CONTENT_TYPE)
        if ending.problem is not None:
            frame = self._encoder.error(ending.problem)
        else:
            frame = self._encoder.done(
                finish_reason=answer.finish_reason,
                usage=answer.usage,
                generation_id=answer.generation_id,
            )
        return await self.finish(self._take_connected() + frame)

    def _take_connected(self) -> bytes:
        """Return `connected` once: a cancel may come between the head and it."""
        connected, self._connected = self._connected, b""
        return connected


class OpenAIResponder(ASGIWriter):
    """Answers `stream: true`: upstream's chunks as they are, then `[DONE]`.

    The head goes out when upstream answers 200, or with the first heartbeat: a client
    that waits for a slow model must see a sign of life, and the status is its price.
    """

    __slots__ = ("_model",)

    def __init__(
        self, send: Send, headers: Headers, context: RequestContext, *, model: str
    ) -> None:
        super().__init__(send, headers, context)
        self._model = model

    async def accepted(self) -> None:
        """Do nothing: the status is not known yet."""

    async def opened(self) -> None:
        """Write the head, unless a heartbeat or an earlier attempt has."""
        if not self.started:
            await self.start(status=200, content_type=sse.CONTENT_TYPE)

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the chunks of a block; return (events, bytes) written."""
        frames, count = openai_responses.frames(items)
        if frames:
            await self._send(
                {"type": "http.response.body", "body": frames, "more_body": True}
            )
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Write a comment, after the head."""
        await self.opened()
        await self.write(sse.HEARTBEAT)

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write `[DONE]`, or an error: as a chunk, or as the response itself."""
        if ending.problem is None:
            return await self.finish(openai_responses.DONE)
        if self.started:
            chunk = openai_responses.error_chunk(
                ending.problem,
                chunk_id=answer.generation_id or self._context.request_id,
                model=self._model,
                created=int(time.time()),
            )
            return await self.finish(chunk)
        return await write_error(self, ending.problem)


class OpenAIDocumentResponder(ASGIWriter):
    """Answers `stream: false`: upstream's document as it is, or an error.

    It cannot write a sign of life: a JSON response has no room for one before its
    status is known. Once the head has said how long the document is, the document
    follows, even if the stream is ended between the two: nothing else can.
    """

    __slots__ = ("_unwritten",)

    def __init__(self, send: Send, headers: Headers, context: RequestContext) -> None:
        super().__init__(send, headers, context)
        self._unwritten = b""

    async def accepted(self) -> None:
        """Do nothing: the status is not known yet."""

    async def opened(self) -> None:
        """Do nothing: the document may still turn out to be an error."""

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the document, if it is one and whole; return (events, bytes)."""
        first = items[0]
        if type(first) is not Raw or type(items[-1]) is not Done:
            return 0, 0
        size = len(first.payload)
        length = ("Content-Length", str(size))
        self._unwritten = first.payload
        await self.start(status=200, content_type=JSON, more=[length])
        await self._write_document()
        return 1, size

    async def heartbeat(self) -> None:
        """Do nothing."""

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write the end of the document, or the error if there is none."""
        await self._write_document()
        if ending.problem is not None and not self.started:
            return await write_error(self, ending.problem)
        return await self.finish()

    async def _write_document(self) -> None:
        document, self._unwritten = self._unwritten, b""
        if document:
            await self.write(document)


async def write_error(writer: ASGIWriter, problem: Problem) -> bool:
    """Write a whole error response; return whether it has left."""
    await writer.start(
        status=openai_responses.status_of(problem),
        content_type=JSON,
        more=openai_responses.error_headers(problem),
    )
    return await writer.finish(openai_responses.error_body(problem))
