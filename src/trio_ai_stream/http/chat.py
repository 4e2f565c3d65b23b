"""`POST /chat`: the original Go server's endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from trio_ai_stream.http.admit import admit_stream
from trio_ai_stream.http.endpoint import Endpoint, Run
from trio_ai_stream.http.http_responses import Headers
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.http.writer import Send, Writer
from trio_ai_stream.stream.outcome import Ending
from trio_ai_stream.stream.relay import relay
from trio_ai_stream.stream.transcript import Answer
from trio_ai_stream.upstream.openrouter import chat_request
from trio_ai_stream.wire import sse
from trio_ai_stream.wire.events import Item
from trio_ai_stream.wire.requests import parse_chat_request


def chat_endpoint(services: Services) -> Endpoint:
    """Return the endpoint of `POST /chat`."""

    async def chat(context: RequestContext, body: bytes) -> Run:
        """Stream one answer.

        Leaving ends everything that the request started, upstream's work included.
        """
        settings = services.settings
        request = parse_chat_request(
            body,
            max_prompt_length=settings.MAX_PROMPT_LENGTH,
            max_messages_length=settings.MAX_MESSAGES_LENGTH,
        )
        call = chat_request(
            request,
            request_id=context.request_id,
            default_model=settings.OPENROUTER_MODEL,
            trace=context.trace,
        )
        upstream = services.upstream
        assert upstream is not None
        stream = await admit_stream(services, context, call, endpoint="/chat")
        encoder = sse.ChatEncoder(
            call.request_id, include_reasoning=bool(request.include_reasoning)
        )

        def run(send: Send, fields: Headers) -> Awaitable[None]:
            connected = encoder.connected(model=call.model, upstream=upstream.kind)
            writer = Writer(send, fields, context)
            client = ChatClient(writer, encoder, connected)
            return relay(
                stream, upstream, client, services.timer_queue, services.retries
            )

        return run

    return Endpoint("/chat", chat)


class ChatClient:
    """The client of `POST /chat`: answered at once, told everything as events."""

    __slots__ = ("_connected", "_encoder", "_writer")

    def __init__(
        self, writer: Writer, encoder: sse.ChatEncoder, connected: bytes
    ) -> None:
        self._writer = writer
        self._encoder = encoder
        self._connected = connected

    async def accepted(self) -> None:
        """Write the head and `connected`, before upstream answers."""
        await self._writer.start(
            status=200, content_type=sse.CONTENT_TYPE, body_follows=True
        )
        await self._writer.write(self._owed())

    async def opened(self) -> None:
        """Do nothing: the client has its status already."""

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write the content of a block; return (events, bytes) written."""
        frames, count = self._encoder.content(items)
        if frames:
            await self._writer.write(frames)
        return count, len(frames)

    async def heartbeat(self) -> None:
        """Write a comment."""
        await self._writer.write(sse.HEARTBEAT)

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write `done` or `error`, and the end of the response."""
        if not self._writer.started:
            await self._writer.start(status=200, content_type=sse.CONTENT_TYPE)
        if ending.problem is not None:
            frame = self._encoder.error(ending.problem)
        else:
            frame = self._encoder.done(
                finish_reason=answer.finish_reason,
                usage=answer.usage,
                generation_id=answer.generation_id,
            )
        return await self._writer.finish(self._owed() + frame)

    def _owed(self) -> bytes:
        """Return `connected` once: a cancel may come between the head and it."""
        connected, self._connected = self._connected, b""
        return connected
