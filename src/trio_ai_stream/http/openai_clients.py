"""The two clients of `POST /v1/chat/completions`: of a stream and of one document.

Both leave the head unwritten until it is known whether upstream answers, so that a
refusal has its true status.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from trio_ai_stream.http.writer import Writer
from trio_ai_stream.stream.outcome import Ending
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.transcript import Answer
from trio_ai_stream.wire import openai_responses, sse
from trio_ai_stream.wire.events import Done, Item, Raw
from trio_ai_stream.wire.problems import Problem

JSON = "application/json"


class EventClient:
    """The client of `stream: true`: upstream's chunks as they are, then `[DONE]`.

    The head goes out when upstream answers 200, or with the first heartbeat: a client
    that waits for a slow model must see a sign of life, and the status is its price.
    """

    __slots__ = ("_call", "_writer")

    def __init__(self, writer: Writer, call: UpstreamRequest) -> None:
        self._writer = writer
        self._call = call

    async def accepted(self) -> None:
        """Do nothing: the status is not known yet."""

    async def opened(self) -> None:
        """Write the head, unless a heartbeat or an earlier attempt has."""
        if not self._writer.started:
            await self._writer.start(status=200, content_type=sse.CONTENT_TYPE)

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the chunks of a block; return (events, bytes) written."""
        frames, count = openai_responses.frames(items)
        if frames:
            await self._writer.write(frames)
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Write a comment, after the head."""
        await self.opened()
        await self._writer.write(sse.HEARTBEAT)

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write `[DONE]`, or an error: as a chunk, or as the response itself."""
        if ending.problem is None:
            return await self._writer.finish(openai_responses.DONE)
        if self._writer.started:
            chunk = openai_responses.error_chunk(
                ending.problem,
                chunk_id=answer.generation_id or self._call.request_id,
                model=self._call.model,
                created=int(time.time()),
            )
            return await self._writer.finish(chunk)
        return await write_error(self._writer, ending.problem)


class DocumentClient:
    """The client of `stream: false`: upstream's document as it is, or an error.

    It cannot be sent a sign of life: a JSON response has no room for one before its
    status is known. Once the head has said how long the document is, the document
    follows, even if the stream is ended between the two: nothing else can.
    """

    __slots__ = ("_owed", "_writer")

    def __init__(self, writer: Writer) -> None:
        self._owed = b""
        self._writer = writer

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
        self._owed = first.payload
        await self._writer.start(status=200, content_type=JSON, more=[length])
        await self._pay()
        return 1, size

    async def heartbeat(self) -> None:
        """Do nothing."""

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write the end of the document, or the error if there is none."""
        await self._pay()
        if ending.problem is not None and not self._writer.started:
            return await write_error(self._writer, ending.problem)
        return await self._writer.finish()

    async def _pay(self) -> None:
        owed, self._owed = self._owed, b""
        if owed:
            await self._writer.write(owed)


async def write_error(writer: Writer, problem: Problem) -> bool:
    """Write a whole error response; return whether it has left."""
    await writer.start(
        status=openai_responses.status_of(problem),
        content_type=JSON,
        more=openai_responses.error_headers(problem),
    )
    return await writer.finish(openai_responses.error_body(problem))
