"""`POST /chat`: the original Go server's endpoint."""

from __future__ import annotations

from functools import partial

from trio_ai_stream.http.admit import admit_stream
from trio_ai_stream.http.endpoint import Endpoint, StreamRun
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.responder import ChatResponder
from trio_ai_stream.upstream.openrouter import chat_request
from trio_ai_stream.wire.requests import parse_chat_request
from trio_ai_stream.wire.sse import ChatEncoder


class ChatEndpoint(Endpoint):
    """Streams one answer as events."""

    name = "chat"
    path = "/chat"

    async def open(self, context: RequestContext, body: bytes) -> StreamRun:
        """Stream one answer.

        Leaving ends everything that the request started, upstream's work included.
        """
        services = self.services
        settings = services.settings
        chat = parse_chat_request(
            body,
            max_prompt_length=settings.MAX_PROMPT_LENGTH,
            max_messages_length=settings.MAX_MESSAGES_LENGTH,
        )
        request = chat_request(
            chat,
            request_id=context.request_id,
            default_model=settings.OPENROUTER_MODEL,
            trace=context.trace,
        )
        stream = await admit_stream(services, context, request, endpoint=self.path)
        encoder = ChatEncoder(
            context.request_id, include_reasoning=bool(chat.include_reasoning)
        )
        assert services.upstream is not None
        connected = encoder.connected(
            model=request.model, upstream=services.upstream.kind
        )
        respond = partial(ChatResponder, encoder=encoder, connected=connected)
        return StreamRun(services, context, stream, respond)
